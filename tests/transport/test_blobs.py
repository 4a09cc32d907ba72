import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest

from fedpriv.errors import MissingBlobError, SignatureError, UnreachableError, UntrustedError
from fedpriv.files import write_atomic
from fedpriv.study import Progress
from fedpriv.transport import OwnerSession, retrying
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.spool import Spool
from tests.transport.conftest import OWNER, RESEARCHER


def test_a_blob_arrives_and_is_private_on_the_store(pair, tmp_path):
    data = os.urandom(200_000)
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", data)
    path = pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    assert path.read_bytes() == data
    on_store = (pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1").read_bytes()
    assert data[:64] not in on_store
    pair.owner.blobs.remove(RESEARCHER, "update-1")
    assert pair.researcher.blobs.receive(OWNER, reference, path).read_bytes() == data  # kept, not fetched again
    with pytest.raises(UntrustedError, match="announced update-1, which is not on the store"):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "again")


def test_a_changed_or_swapped_blob_is_refused(pair, tmp_path):
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", b"a" * 1000)
    path = pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1"
    good = path.read_bytes()
    path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    with pytest.raises((SignatureError, UntrustedError)):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    pair.owner.blobs.send(
        RESEARCHER, "update-1", b"b" * 1000
    )  # a newer one in its place: signed, but not the one meant
    with pytest.raises(UntrustedError, match="not what its message says"):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("size", [1000, 9_000_000], ids=["small", "in parts"])
def test_none_of_a_blob_that_is_larger_than_it_can_rightly_be_is_fetched(pair, tmp_path, size):
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", bytes(size))
    target = tmp_path / "got"
    with pytest.raises(UntrustedError, match=rf"announced update-1 with {size} bytes, and it can have {size - 1} at"):
        pair.researcher.blobs.receive(OWNER, reference, target, max_bytes=size - 1)
    assert list(tmp_path.glob("*got*")) == []
    assert pair.researcher.blobs.receive(OWNER, reference, target, max_bytes=size).stat().st_size == size


def test_progress_is_a_courtesy(pair):
    assert pair.researcher.blobs.progress_of(OWNER) is None
    progress = Progress(study="0" * 64, round=1, state="training", step=1, steps=4)
    pair.owner.blobs.show_progress(RESEARCHER, progress)
    assert pair.researcher.blobs.progress_of(OWNER) == progress
    (pair.root / "store" / OWNER / "to" / RESEARCHER / "status").write_bytes(b"noise")
    assert pair.researcher.blobs.progress_of(OWNER) is None


def test_a_blob_that_the_store_lost_is_sent_again_until_it_was_taken(pair, tmp_path):
    data = os.urandom(3000)
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", data)
    lying = pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1"
    assert pair.owner.blobs.send_lost(RESEARCHER) == []
    lying.unlink()
    with pytest.raises(MissingBlobError):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    again = OwnerSession(pair.owner.settings)  # it knows after a restart, too, and looks at its first poll
    again.poll()
    assert pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got").read_bytes() == data
    again.blobs.remove(RESEARCHER, "update-1")
    assert again.blobs.send_lost(RESEARCHER) == []
    assert not lying.exists()


class FailingFiles:
    """A store's files of which one call, the n-th, does not come through, and none after it until it is mended."""

    def __init__(self, files, number):
        self._files, self.left = files, number

    def __getattr__(self, name):
        attribute = getattr(self._files, name)
        if not callable(attribute):
            return attribute

        def call(*arguments):
            self.left -= 1
            if self.left < 0:
                raise UnreachableError("away")
            return attribute(*arguments)

        return call


@pytest.mark.parametrize("again", ["same process", "restarted", "called again"])
def test_what_is_removed_is_gone_in_the_end_wherever_the_store_fails(pair, again, monkeypatch):
    monkeypatch.setattr(retrying, "ATTEMPTS", 1)
    left, session = pair.root / "store" / OWNER / "to" / RESEARCHER, pair.owner
    spool = Spool(session.settings.folder / "transport" / "spool")
    store = session.connection.store
    peers = session.client.peer_manager.peer_store
    for number in range(100):
        blobs = BlobChannel(session.connection, peers, spool=spool, part_bytes=1000)
        for name, size in (("update-1", 2500), ("update-2", 500)):
            blobs.send(RESEARCHER, name, os.urandom(size))
        good, store._files = store._files, FailingFiles(store._files, number)
        try:
            with contextlib.suppress(UnreachableError):
                blobs.remove(RESEARCHER, "update-1")
            came_through = store._files.left >= 0
        finally:
            store._files = good
        if again == "called again":
            blobs.remove(RESEARCHER, "update-1")
        elif again == "restarted":
            blobs = BlobChannel(session.connection, peers, spool=spool, part_bytes=1000)
        assert blobs.send_lost(RESEARCHER) == []
        assert [path.name for path in (left / "blobs").iterdir()] == ["update-2"]
        assert list((left / "parts").iterdir()) == []
        assert [path.name for path in spool.path(RESEARCHER, "").iterdir()] == ["update-2"]
        if came_through:
            break
    assert number > 4


@pytest.mark.parametrize("step", ["write_atomic", "unlink"])
def test_a_kill_while_a_copy_is_forgotten_loses_none_and_leaves_none(pair, monkeypatch, step):
    blobs, lying = pair.owner.blobs, pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1"
    blobs.send(RESEARCHER, "update-1", b"a" * 1000)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            *(("fedpriv.transport.spool.write_atomic",) if step == "write_atomic" else (Path, step)), killed
        )
        blobs.remove(RESEARCHER, "update-1")
    assert blobs.send_lost(RESEARCHER) == []
    assert lying.exists() == (step == "write_atomic")  # the caller did not get so far: it removes it again
    blobs.send(RESEARCHER, "update-1", b"b" * 1000)
    assert blobs.send_lost(RESEARCHER) == []
    assert lying.exists()


def test_what_is_taken_while_it_is_sent_again_is_not_left_there(pair, monkeypatch):
    blobs, lying = pair.owner.blobs, pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1"
    blobs.send(RESEARCHER, "update-1", b"a" * 1000)
    lying.unlink()
    put = blobs._put

    def put_late(*arguments):
        blobs.remove(RESEARCHER, "update-1")
        put(*arguments)

    monkeypatch.setattr(blobs, "_put", put_late)
    assert blobs.send_lost(RESEARCHER) == []
    assert not lying.exists()


def test_a_file_is_linked_and_what_is_kept_does_not_follow_the_one_that_takes_its_place(pair, tmp_path):
    path = tmp_path / "update.safetensors"
    path.write_bytes(b"a" * 1000)
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", path)
    kept = pair.root / OWNER / "transport" / "spool" / RESEARCHER / "update-1"
    assert kept.stat().st_ino == path.stat().st_ino
    write_atomic(path, b"b" * 1000)
    (pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1").unlink()
    assert pair.owner.blobs.send_lost(RESEARCHER) == ["update-1"]
    assert pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got").read_bytes() == b"a" * 1000
    pair.owner.blobs.send(RESEARCHER, "update-1", kept)
    assert kept.read_bytes() == b"a" * 1000
    assert [p.name for p in kept.parent.iterdir()] == ["update-1"]


def test_a_copy_that_a_full_disk_does_not_take_leaves_nothing(tmp_path, monkeypatch):
    path, spool = tmp_path / "update.safetensors", Spool(tmp_path / "spool")
    path.write_bytes(b"a" * 1000)

    def no_links(*_):
        raise PermissionError

    def full(read, write):
        write.write(read.read(500))
        write.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", no_links)
        patched.setattr(shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space"):
            spool.keep(RESEARCHER, "update-1", path)
    assert list((tmp_path / "spool" / RESEARCHER).iterdir()) == []


def test_progress_is_always_as_long(pair):
    path = pair.root / "store" / OWNER / "to" / RESEARCHER / "status"
    sizes = set()
    for round_number, step in ((1, 1), (100, 1000)):
        progress = Progress(study="0" * 64, round=round_number, state="training", step=step, steps=4000)
        pair.owner.blobs.show_progress(RESEARCHER, progress)
        sizes.add(path.stat().st_size)
    assert len(sizes) == 1
