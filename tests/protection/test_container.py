from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fedpriv.errors import ContainerError
from fedpriv.files import file_sha256
from fedpriv.protection.container import MAX_HEADER_BYTES, Container, new_container, open_container

SHAPES = {"b": (5, 7), "a": (2, 30)}
HEADER = {"round": 1, "umlaut": "ü", "weight": 0.1}
BIG = 2**20


def rows_of(shapes=SHAPES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}


def write(path, header=HEADER, shapes=SHAPES) -> tuple[str, int]:
    with new_container(path, header, shapes) as draft:
        for name, rows in rows_of(shapes).items():
            draft.write(name, 0, rows)
    return draft.sha256, draft.size_bytes


def reopened(path) -> Container:
    return open_container(path, max_bytes=BIG, expect_sha256=file_sha256(path))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.fedpriv"
    return path, *write(path)


def test_what_is_written_is_read_and_is_a_safetensors_file(file):
    path, digest, size = file
    assert (path.stat().st_size, file_sha256(path), path.stat().st_mode & 0o777) == (size, digest, 0o600)
    container = open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=digest)
    container.require(SHAPES)
    assert container.header == HEADER
    for name, rows in rows_of().items():
        np.testing.assert_array_equal(container.rows(name, 0, len(rows)), rows)
        np.testing.assert_array_equal(container.rows(name, 1, 2), rows[1:2])
        np.testing.assert_array_equal(load_file(path)[name], rows)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_bytes_are_as_documented(file):
    path, _, size = file
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + length])
    assert list(head) == ["__metadata__", "b", "a"]
    assert length % 8 == 0
    assert data[8 + length :] == b"".join(rows.tobytes() for rows in rows_of().values())
    assert size == 8 + length + 95
    text = '{"round":1,"umlaut":"ü","weight":0.1}'
    assert head["__metadata__"] == {"format": "fedpriv-container", "version": "4", "header": text}


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 9),
    width=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 9), max_size=4),
    backwards=st.booleans(),
)
def test_rows_can_be_written_in_any_pieces_and_order(tmp_path_factory, rows, width, cuts, backwards):
    path = tmp_path_factory.mktemp("c") / "x"
    data = rows_of({"x": (rows, width)})["x"]
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    pieces = list(itertools.pairwise(edges))
    with new_container(path, {}, {"x": (rows, width)}) as draft:
        for start, stop in reversed(pieces) if backwards else pieces:
            draft.write("x", start, data[start:stop])
    np.testing.assert_array_equal(reopened(path).rows("x", 0, rows), data)


def test_drafts_and_containers_reach_a_worker_by_their_path(tmp_path):
    path = tmp_path / "x"
    data = rows_of()["b"]
    with new_container(path, {}, {"b": SHAPES["b"]}) as draft:
        draft.write("b", 0, data[:3])
        pickle.loads(pickle.dumps(draft)).write("b", 3, data[3:])  # noqa: S301 - what we just wrote
    container = pickle.loads(pickle.dumps(reopened(path)))  # noqa: S301 - what we just wrote
    np.testing.assert_array_equal(container.rows("b", 0, 5), data)


def test_a_write_that_is_cut_short_goes_on(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data)[:11], offset))
    write(tmp_path / "x")
    container = reopened(tmp_path / "x")
    np.testing.assert_array_equal(container.rows("b", 0, 5), rows_of()["b"])


def test_a_container_appears_whole_by_a_rename(file):
    path, digest, _ = file
    with new_container(path, {}, {"x": (1, 3)}) as draft:
        written = draft.path.stat().st_ino
        assert file_sha256(path) == digest
        assert draft.path != path
    assert path.stat().st_ino == written


def test_a_failed_write_leaves_the_old_file(file):
    path, digest, _ = file

    def fail():
        with new_container(path, {}, SHAPES):
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        fail()
    with pytest.raises(ValueError, match="the header has"):
        write(path, {"x": "y" * MAX_HEADER_BYTES})
    assert file_sha256(path) == digest
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_size_digest_and_shapes_are_checked(file):
    path, digest, size = file
    for options, words in (
        ({"max_bytes": size - 1, "expect_sha256": digest}, "announced"),
        ({"max_bytes": size, "expect_sha256": digest, "expect_bytes": size + 1}, "announced"),
        ({"max_bytes": size, "expect_sha256": "0" * 64}, "digest"),
    ):
        with pytest.raises(ContainerError, match=words):
            open_container(path, **options)
    with pytest.raises(ContainerError, match="cannot be read"):
        open_container(path.with_name("none"), max_bytes=size, expect_sha256=digest)
    container = open_container(path, max_bytes=size, expect_sha256=digest)
    for shapes, words in (
        ({"a": (2, 30)}, "in place of"),
        ({**SHAPES, "c": (1, 1)}, "in place of"),
        ({**SHAPES, "a": (30, 2)}, "not"),
        ({**SHAPES, "b": (5, 8)}, "not"),
    ):
        with pytest.raises(ContainerError, match=words):
            container.require(shapes)


META = {"format": "fedpriv-container", "version": "4", "header": "{}"}
ENTRY = {"dtype": "U8", "shape": [3, 1], "data_offsets": [0, 3]}


def put(path, head, data=b"abc") -> None:
    """Write a file with a head of any JSON or bytes, in the spelling that containers have."""
    text = head
    if not isinstance(head, bytes):
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        text = text.ljust(-(-len(text) // 8) * 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def metadata(path, **changes):
    known = META | changes
    put(path, {"__metadata__": {k: v for k, v in known.items() if v is not None}, "x": ENTRY})


def test_another_version_is_named(file, tmp_path):
    for version in ("1", "3", "4.0", ""):
        metadata(tmp_path / "y", version=version)
        with pytest.raises(ContainerError, match="same version of fedpriv"):
            reopened(tmp_path / "y")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "pt"},
        {"format": None},
        {"version": None},
        {"header": None},
        {"header": "["},
        {"header": "[]"},
        {"header": "1"},
        {"header": "NaN"},
        {"header": '{"x":Infinity}'},
        {"header": "[" * 100_000},
        {"header": "1" * 10_000},
        {"extra": "x"},
    ],
)
def test_foreign_metadata_is_refused(tmp_path, changes):
    metadata(tmp_path / "x", **changes)
    with pytest.raises(ContainerError):
        reopened(tmp_path / "x")


def test_a_file_without_metadata_is_refused(tmp_path):
    put(tmp_path / "x", {"x": ENTRY})
    with pytest.raises(ContainerError, match="unreadable header"):
        reopened(tmp_path / "x")


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY | {"data_offsets": [0, 4]},
        ENTRY | {"data_offsets": [1, 4]},
        ENTRY | {"data_offsets": [0, 2**60]},
        ENTRY | {"data_offsets": [0, 3, 3]},
        ENTRY | {"data_offsets": None},
        ENTRY | {"shape": [2**62, 2**62]},
        ENTRY | {"shape": [2**39, 2**39]},
        ENTRY | {"shape": [-3, -1]},
        ENTRY | {"shape": [3]},
        ENTRY | {"shape": [3, 1, 1]},
        ENTRY | {"shape": [True, 3]},
        ENTRY | {"shape": [3.0, 1.0]},
        ENTRY | {"shape": "31"},
        ENTRY | {"dtype": "BF16"},
        ENTRY | {"dtype": 8},
        ENTRY | {"more": 1},
        {"dtype": "U8"},
        [],
        None,
        7,
        "x",
        {},
    ],
)
def test_lying_entries_are_refused(tmp_path, entry):
    put(tmp_path / "x", {"__metadata__": META, "x": ENTRY})
    assert reopened(tmp_path / "x").header == {}
    put(tmp_path / "x", {"__metadata__": META, "x": entry})
    with pytest.raises(ContainerError):
        reopened(tmp_path / "x")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b"{" * 1000,
        b"[" * 100_000,
        {"__metadata__": []},
        {"__metadata__": "x"},
        {"__metadata__": META | {"header": {}}, "x": ENTRY},
        {"__metadata__": META | {"header": "\ud800"}, "x": ENTRY},
        {"__metadata__": META, "x": ENTRY, "y": ENTRY},
    ],
)
def test_lying_heads_are_refused(tmp_path, head):
    put(tmp_path / "x", head)
    with pytest.raises(ContainerError):
        reopened(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 7, 2**20 + 1, 2**31, 2**63, 2**64 - 1])
def test_huge_and_impossible_header_sizes_are_refused_without_reading_them(tmp_path, length):
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ContainerError):
        reopened(tmp_path / "x")


@pytest.mark.parametrize("size", range(8))
def test_files_shorter_than_a_length_are_refused(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(size))
    with pytest.raises(ContainerError):
        reopened(tmp_path / "x")


def mutants(data: bytes, number: int, seed: int):
    rng = random.Random(seed)
    for index in range(number):
        changed = bytearray(data)
        if index % 3 == 0:
            del changed[rng.randrange(len(changed)) :]
        else:
            for _ in range(index % 5 + 1):
                limit = len(changed) if index % 2 else min(len(changed), 300)
                changed[rng.randrange(limit)] ^= 1 << rng.randrange(8)
        if changed != data:
            yield bytes(changed)


def test_mutants_are_always_refused_by_their_digest(file):
    path, digest, size = file
    for mutant in mutants(path.read_bytes(), 300, 3):
        path.write_bytes(mutant)
        with pytest.raises(ContainerError):
            open_container(path, max_bytes=size, expect_sha256=digest)


def test_mutants_with_a_matching_digest_are_refused_or_differ_in_their_data_or_header(file):
    path, _, _ = file
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    refused = 0
    for mutant in mutants(data, 600, 4):
        path.write_bytes(mutant)
        try:
            container = reopened(path)
            container.require(SHAPES)
        except ContainerError:
            refused += 1
        else:
            assert len(mutant) == len(data)
            assert container.header != HEADER or mutant[8 + length :] != data[8 + length :]
    assert refused > 400


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace(b"[0,35]", b"[0.0,35.0]"),
        lambda text: text.replace(b'{"__meta', b'{ "__meta'),
        lambda text: text.replace(b'"b":{', b'"b":7,"b":{'),
        lambda text: text.replace(b'\\"weight\\":0.1', b'\\"weight\\":0.10'),
        lambda text: text.replace(b'\\"weight\\":0.1', b'\\"weight\\":1e-1'),
        lambda text: text.replace("ü".encode(), b"\\\\u00fc"),
        lambda text: text + b"\n",
    ],
)
def test_a_head_in_another_spelling_is_refused(file, rewrite):
    """There is one file for one content: nobody can change a byte of it and have the same thing read."""
    path, _, _ = file
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    text = rewrite(data[8 : 8 + length])
    assert text != data[8 : 8 + length]
    assert json.loads(text) is not None
    put(path, text, data[8 + length :])
    with pytest.raises(ContainerError):
        reopened(path)
