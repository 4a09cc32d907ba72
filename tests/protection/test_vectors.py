from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fedpriv.errors import ProtectionError
from fedpriv.protection.vectors import VectorFile, new_vector, open_vector, shared_vector
from tests.protection.helpers import CreatedMemory

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


def test_workers_read_what_they_are_shown_and_what_they_write_can_be_taken(monkeypatch):
    memory, values = CreatedMemory(monkeypatch), VALUES.copy()
    with shared_vector(values, workers=2) as vector:
        data = pickle.dumps(vector)
        assert len(data) < 300
        other = pickle.loads(data)  # noqa: S301 - what we just wrote
        assert (vector.away, other.away) == (False, True)
        vector.show(slice(0, 400))
        vector.show(slice(400, 1000))
        np.testing.assert_array_equal(other.read(slice(10, 1000)), values[10:])
        np.testing.assert_array_equal(vector.read(slice(10, 1000)), values[10:])
        other.write(slice(3, 5), np.array([7, 8], np.float32))
        assert values[3] == VALUES[3]
        vector.take(slice(3, 5))
        assert values[3:5].tolist() == [7, 8]
        vector.write(slice(0, 1), np.array([9], np.float32))
        assert values[0] == 9
        other.show(slice(0, 1000))  # a worker has no values of its own
        other.take(slice(0, 1000))
        assert other.read(slice(0, 1)).tolist() == [VALUES[0]]
    assert len(memory) == 1
    assert memory.is_gone


def test_memory_is_given_back_after_an_error_and_for_an_empty_vector(monkeypatch):
    memory = CreatedMemory(monkeypatch)

    def fail():
        with shared_vector(VALUES, workers=2):
            raise RuntimeError("any")

    with pytest.raises(RuntimeError):
        fail()
    with shared_vector(VALUES[:0], workers=3) as vector:
        vector.show(slice(0, 0))
    assert len(memory) == 2
    assert memory.is_gone


def test_without_files_in_memory_a_private_one_is_used(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_vector(VALUES, workers=2) as vector:
        vector.show(slice(0, 1000))
        other = pickle.loads(pickle.dumps(vector))  # noqa: S301 - what we just wrote
        np.testing.assert_array_equal(other.read(slice(0, 1000)), VALUES)
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / "vector").stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_one_worker_has_nothing_to_share(monkeypatch):
    memory, values = CreatedMemory(monkeypatch), VALUES.copy()
    with shared_vector(values, workers=1) as vector:
        vector.show(slice(0, 1000))
        assert vector.read(slice(0, 1000)).base is values
        vector.write(slice(1, 2), np.array([5], np.float32))
        assert values[1] == 5
        for step in (lambda: pickle.dumps(vector), lambda: vector.take(slice(0, 1))):
            with pytest.raises(TypeError, match="for one process"):
                step()
    assert len(memory) == 0
