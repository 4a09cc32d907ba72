from __future__ import annotations

import json
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fedpriv.errors import ContainerError
from fedpriv.files import file_sha256
from fedpriv.protection.container import Stream, open_container, read_container, write_container

DTYPES = {"a": "float64", "b": "uint64", "c": "float32", "d": "uint8"}
BIG = 2**20


def arrays(rng) -> dict[str, np.ndarray]:
    return {
        "a": rng.standard_normal((3, 2)),
        "b": rng.integers(0, 2**63, 5, dtype=np.uint64),
        "c": rng.standard_normal(7).astype(np.float32),
        "d": rng.integers(0, 256, (2, 2, 3), dtype=np.uint8),
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    digest, size = write_container(path, {"round": 1, "umlaut": "ü"}, arrays(np.random.default_rng(1)))
    return path, digest, size


def test_what_is_written_is_read(file):
    path, digest, size = file
    assert (path.stat().st_size, file_sha256(path), path.stat().st_mode & 0o777) == (size, digest, 0o600)
    header, read = read_container(path, max_bytes=size, expect_sha256=digest, dtypes=DTYPES)
    assert header == {"round": 1, "umlaut": "ü"}
    for name, array in arrays(np.random.default_rng(1)).items():
        np.testing.assert_array_equal(read[name], array)
        np.testing.assert_array_equal(load_file(path)[name], array)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_streams_of_unknown_length(tmp_path_factory, rows, seed):
    rng = np.random.default_rng(seed)
    pieces = [rng.integers(0, 256, (number, 3), dtype=np.uint8) for number in rows]
    path = tmp_path_factory.mktemp("s") / "x"
    digest, size = write_container(
        path, {}, {"x": Stream("uint8", (-1, 3), iter(pieces)), "y": np.arange(3, dtype=np.uint64)}
    )
    with open_container(path, max_bytes=size, expect_sha256=digest) as container:
        container.require({"x": ("uint8", (sum(rows), 3)), "y": ("uint64", (3,))})
        np.testing.assert_array_equal(container.rows("x", 0, sum(rows)), np.concatenate(pieces))
        np.testing.assert_array_equal(container.rows("x", 1, 2), np.concatenate(pieces)[1:2])
        np.testing.assert_array_equal(container.rows("y", 0, 3), [0, 1, 2])


def test_a_failed_write_leaves_the_old_file(file):
    path, digest, _ = file

    def pieces():
        yield np.zeros((1, 3), np.uint8)
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_container(path, {}, {"x": Stream("uint8", (-1, 3), pieces())})
    with pytest.raises(ValueError, match="came with"):
        write_container(path, {}, {"x": Stream("uint8", (2, 3), [np.zeros((1, 3), np.uint8)])})
    with pytest.raises(ValueError, match="cannot hold"):
        write_container(path, {}, {"x": np.zeros(3, np.int16)})
    assert file_sha256(path) == digest
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_size_digest_names_and_dtypes_are_checked(file):
    path, digest, size = file
    with pytest.raises(ContainerError, match="announced"):
        read_container(path, max_bytes=size - 1, expect_sha256=digest, dtypes=DTYPES)
    with pytest.raises(ContainerError, match="digest"):
        read_container(path, max_bytes=size, expect_sha256="0" * 64, dtypes=DTYPES)
    with pytest.raises(ContainerError, match="in place of"):
        read_container(path, max_bytes=size, expect_sha256=digest, dtypes={"a": "float64"})
    with pytest.raises(ContainerError, match="in place of"):
        read_container(path, max_bytes=size, expect_sha256=digest, dtypes={**DTYPES, "e": "uint8"})
    with pytest.raises(ContainerError, match="not float64"):
        read_container(path, max_bytes=size, expect_sha256=digest, dtypes={**DTYPES, "c": "float64"})
    with pytest.raises(ContainerError, match="cannot be read"):
        read_container(path.with_name("none"), max_bytes=size, expect_sha256=digest, dtypes=DTYPES)
    with (
        pytest.raises(ContainerError, match="announced"),
        open_container(path, max_bytes=BIG, expect_bytes=size + 1, expect_sha256=digest),
    ):
        pass


def test_errors_of_the_caller_are_not_taken_for_the_containers(file):
    path, digest, size = file
    with pytest.raises(OSError, match="disk full"), open_container(path, max_bytes=size, expect_sha256=digest):
        raise OSError("disk full")


def metadata(path, **changes):
    known = {"format": "fedpriv-container", "version": "1", "header": "{}"} | changes
    save_file({"x": np.zeros(3, np.uint8)}, path, metadata={k: v for k, v in known.items() if v is not None})
    return {"max_bytes": BIG, "expect_sha256": file_sha256(path), "dtypes": {"x": "uint8"}}


def test_foreign_metadata(tmp_path):
    path = tmp_path / "x"
    read_container(path, **metadata(path))
    with pytest.raises(ContainerError, match="upgrade"):
        read_container(path, **metadata(path, version="2"))
    for changes in (
        {"format": "pt"},
        {"format": None},
        {"version": None},
        {"header": None},
        {"header": "["},
        {"header": "[]"},
        {"header": "NaN"},
        {"header": "[" * 100_000},
        {"extra": "x"},
    ):
        with pytest.raises(ContainerError):
            read_container(path, **metadata(path, **changes))
    save_file({"x": np.zeros(3, np.uint8)}, path)
    with pytest.raises(ContainerError):
        read_container(path, max_bytes=BIG, expect_sha256=file_sha256(path), dtypes={"x": "uint8"})


def mutants(data: bytes, number: int, seed: int):
    rng = random.Random(seed)
    for index in range(number):
        changed = bytearray(data)
        if index % 3 == 0:
            del changed[rng.randrange(len(changed)) :]
        else:
            for _ in range(index % 5 + 1):
                limit = len(changed) if index % 2 else min(len(changed), 600)
                changed[rng.randrange(limit)] ^= 1 << rng.randrange(8)
        if changed != data:
            yield bytes(changed)


def test_mutants_are_always_refused_by_their_digest(file):
    path, digest, size = file
    for mutant in mutants(path.read_bytes(), 300, 3):
        path.write_bytes(mutant)
        with pytest.raises(ContainerError):
            read_container(path, max_bytes=size, expect_sha256=digest, dtypes=DTYPES)


def test_mutants_with_a_matching_digest_never_crash(file):
    path, _, _ = file
    refused = 0
    for mutant in mutants(path.read_bytes(), 300, 4):
        path.write_bytes(mutant)
        try:
            read_container(path, max_bytes=BIG, expect_sha256=file_sha256(path), dtypes=DTYPES)
        except ContainerError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 4]},
        {"data_offsets": [1, 4]},
        {"data_offsets": [0, 2**60]},
        {"shape": [2**62, 2**62]},
        {"shape": [-1]},
        {"dtype": "BF16"},
        {"dtype": "EVIL"},
    ],
)
def test_lying_heads(tmp_path, change):
    path = tmp_path / "x"
    meta = {"format": "fedpriv-container", "version": "1", "header": "{}"}
    tensor = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]} | change
    head = json.dumps({"__metadata__": meta, "x": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"abc")
    with pytest.raises(ContainerError):
        read_container(path, max_bytes=BIG, expect_sha256=file_sha256(path), dtypes={"x": "uint8"})
