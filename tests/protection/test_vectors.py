from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from fedpriv.errors import ProtectionError
from fedpriv.protection.vectors import VectorFile, new_vector, open_vector, shared_vector
from tests.protection.helpers import created_memory

VALUES = np.linspace(-1, 1, 1000, dtype=np.float32)


def test_what_is_written_in_pieces_is_read_in_others(tmp_path):
    path = tmp_path / "v"
    with new_vector(path, 1000) as vector:
        vector.write(600, VALUES[600:])
        vector.write(0, VALUES[:300])
        assert not path.exists()
    np.testing.assert_array_equal(np.fromfile(path, "<f4"), np.where(np.arange(1000) // 300 == 1, 0, VALUES))
    np.testing.assert_array_equal(open_vector(path, 1000).read(290, 310), [*VALUES[290:300], *[0] * 10])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_vector_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(VALUES.tobytes())

    def fail():
        with new_vector(path, 1000) as vector:
            vector.write(0, -VALUES)
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == VALUES.tobytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_or_longer_vector_is_refused(tmp_path):
    path = tmp_path / "v"
    with pytest.raises(ProtectionError, match="not there"):
        open_vector(path, 1000)
    path.write_bytes(VALUES.tobytes())
    for number in (999, 1001):
        with pytest.raises(ProtectionError, match="does not hold"):
            open_vector(path, number)


def test_a_write_that_is_cut_short_goes_on_and_a_full_disk_is_noticed(tmp_path, monkeypatch):
    write = os.pwrite
    with new_vector(tmp_path / "v", 1000) as vector:
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, bytes(data)[:700], offset))
        vector.write(0, VALUES)
        monkeypatch.undo()
    np.testing.assert_array_equal(open_vector(tmp_path / "v", 1000).read(0, 1000), VALUES)
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space"):
            VectorFile(Path("/dev/full"), writable=True).write(0, VALUES)


def test_a_file_is_sent_to_a_worker_by_its_path(tmp_path):
    path = tmp_path / "v"
    with new_vector(path, 1000) as vector:
        pickle.loads(pickle.dumps(vector)).write(5, VALUES[:2])  # noqa: S301 - what we just wrote
    np.testing.assert_array_equal(open_vector(path, 1000).read(4, 8), [0, *VALUES[:2], 0])


def test_shared_memory_is_seen_by_others_and_given_back(monkeypatch):
    memory = created_memory(monkeypatch)
    with shared_vector(VALUES, workers=2) as vector:
        data = pickle.dumps(vector)
        assert memory[0].name.encode() in data
        assert len(data) < 300
        other = pickle.loads(data)  # noqa: S301 - what we just wrote
        vector.show(slice(0, 400))
        vector.show(slice(400, 1000))
        np.testing.assert_array_equal(other.values, VALUES)
        other.show(slice(0, 1000))  # a worker has nothing of its own to show
        other.values[3] = 7
        assert vector.values[3] == 7
        assert VALUES[3] != 7
        other.close()
    assert len(memory) == 1
    assert not memory[0].exists()


def test_shared_memory_is_given_back_after_an_error_and_for_an_empty_vector(monkeypatch):
    memory = created_memory(monkeypatch)

    def fail():
        with shared_vector(VALUES, workers=2):
            raise RuntimeError("any")

    with pytest.raises(RuntimeError):
        fail()
    with shared_vector(VALUES[:0], workers=3) as vector:
        assert vector.values.size == 0
    assert len(memory) == 2
    assert not any(file.exists() for file in memory)


def test_one_worker_needs_no_copy():
    with shared_vector(VALUES, workers=1) as vector:
        assert vector.values is VALUES
        with pytest.raises(TypeError, match="not in shared memory"):
            pickle.dumps(vector)
