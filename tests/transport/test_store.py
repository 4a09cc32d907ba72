import dataclasses
import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fedpriv.errors import ConfigError, TransportError, UnreachableError, UntrustedError
from fedpriv.transport import OwnerSession, Store
from fedpriv.transport.files import temporary_name
from tests.transport.conftest import OWNER, RESEARCHER

_NOBODY = 65534


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return Store.from_url(str(tmp_path / "s") if request.param == "folder" else f"memory://{tmp_path.name}")


def test_put_get_list_delete(store):
    store.put("a@x.org/to/b@x.org/file", b"one")
    store.put("a@x.org/to/b@x.org/file", b"two")
    assert store.get("a@x.org/to/b@x.org/file", max_bytes=3) == b"two"
    assert store.names() == ["a@x.org"]
    assert [(e.name, e.size_bytes) for e in store.entries("a@x.org/to/b@x.org")] == [("file", 3)]
    assert store.exists("a@x.org/to/b@x.org/file")
    store.delete("a@x.org/to/b@x.org/file")
    store.delete("a@x.org/to/b@x.org/file")
    assert store.get("a@x.org/to/b@x.org/file", max_bytes=3) is None
    assert store.entries("nowhere") == []


def test_a_stamp_tells_that_something_was_put(store):
    before = store.stamp("a/box")
    store.put("a/box/one", b"1")
    after = store.stamp("a/box")
    assert store.stamp("a/box") == after
    if before is None:  # this kind of store cannot tell
        assert after is None
    else:
        assert before == 0 < after


def test_a_larger_object_than_expected_is_refused(store):
    store.put("k", b"12345")
    with pytest.raises(UntrustedError, match="larger than 4 bytes"):
        store.get("k", max_bytes=4)


@pytest.mark.parametrize("key", ["", "../up", "a/../../b", "/abs", "a//b", ".hidden", "a/b\n", "a/" + "x" * 300])
def test_odd_names_are_refused(store, key):
    with pytest.raises(TransportError):
        store.put(key, b"")


def test_where_it_is_not_known_that_a_put_is_there_at_once_it_is_looked_for(store, monkeypatch):
    monkeypatch.setattr("fedpriv.transport.store._LOOKS_S", (0.0, 0.001, 0.001))
    monkeypatch.setattr(store._files, "shows_at_once", False)
    store.put("k", b"12")
    looks, real = [], store._files.look

    def late(path):
        looks.append(path)
        if len(looks) == 1:
            raise FileNotFoundError
        found = real(path)
        return dataclasses.replace(found, size_bytes=1) if len(looks) == 2 else found

    monkeypatch.setattr(store._files, "look", late)
    store.put("k", b"123")
    assert len(looks) == 3
    monkeypatch.setattr(store._files, "look", lambda path: dataclasses.replace(real(path), size_bytes=1))
    with pytest.raises(TransportError, match="took k, and does not show it"):
        store.put("k", b"123")


def test_an_unknown_kind_of_store_is_named():
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store.from_url("gopher://x/y")


def test_a_kind_that_shows_half_written_files_is_not_used():
    with pytest.raises(ConfigError, match="half-written"):
        Store.from_url("ftp://127.0.0.1/x")


def test_what_was_written_of_a_refused_object_is_removed(tmp_path, monkeypatch):
    store = Store.from_url(str(tmp_path / "s"))
    store.put("k", b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(TransportError, match="No space left"):
        store.put("k", b"new")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["k"]
    assert store.get("k", max_bytes=9) == b"old"


def test_a_folder_that_went_away_is_no_new_store(tmp_path):
    """A share that is not mounted any more: what is written then would lie on this machine's own disk."""
    folder = tmp_path / "share" / "study"
    folder.parent.mkdir()
    store = Store.from_url(str(folder))
    assert store.is_gone()
    store.put("a@x.org/version.json", b"1")
    assert not store.is_gone()
    folder.rename(tmp_path / "elsewhere")
    for work in (
        lambda: store.put("a@x.org/version.json", b"2"),
        lambda: store.get("a@x.org/version.json", max_bytes=9),
        store.names,
        lambda: store.stamp("a@x.org"),
        store.is_gone,
    ):
        with pytest.raises(UnreachableError, match="is the share mounted"):
            work()
    assert not folder.exists()
    (tmp_path / "elsewhere").rename(folder)
    assert store.get("a@x.org/version.json", max_bytes=9) == b"1"


def test_of_a_mistyped_path_nothing_is_made(tmp_path):
    store = Store.from_url(str(tmp_path / "sharde" / "study"))
    for _ in range(2):
        with pytest.raises(TransportError, match=r"there is no folder .*sharde.*Next: correct the store's path"):
            store.put("a@x.org/version.json", b"1")
    assert store.get("a@x.org/version.json", max_bytes=9) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_folders_that_may_be_gone_through_and_not_listed_or_written_in_are_enough():
    """As an operator makes them for accounts of their own: the root is his, a folder for each party is the party's."""
    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are nobody else's
        (Path(root) / "a@x.org").mkdir()
        os.chown(Path(root) / "a@x.org", _NOBODY, _NOBODY)
        Path(root).chmod(0o711)
        code = f"""
import os
from fedpriv.transport import Store
store = Store.from_url({root!r})
os.setuid({_NOBODY})
store.put("a@x.org/to/b@x.org/peer", b"peer")
assert store.get("a@x.org/to/b@x.org/peer", max_bytes=9) == b"peer"
assert [entry.name for entry in store.entries("a@x.org/to/b@x.org")] == ["peer"]
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_of_a_party_is_not_made_where_it_is_there(tmp_path, monkeypatch):
    """NFS says of one that others made that it may not be made, where an own disk says that it is there."""
    store = Store.from_url(str(tmp_path / "store"))
    store.put("a@x.org/version.json", b"1")
    made = os.mkdir

    def as_over_nfs(name, *arguments, **options):
        if str(name).endswith("a@x.org"):
            raise PermissionError(errno.EACCES, "not yours", str(name))
        made(name, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", as_over_nfs)
    store.put("a@x.org/to/b@x.org/peer", b"peer")
    assert store.get("a@x.org/to/b@x.org/peer", max_bytes=9) == b"peer"


def test_a_link_in_a_shared_folder_leads_nobody_into_files_of_its_own(tmp_path):
    """Whoever else can write there would have a domain put its public keys over its private ones."""
    keys = tmp_path / "state" / "keys"
    keys.mkdir(parents=True)
    private = keys / "identity.json"
    private.write_text("private")
    store = Store.from_url(str(tmp_path / "store"))
    store.put("b@x.org/k", b"1")
    (tmp_path / "store" / "a@x.org").symlink_to(keys)
    (tmp_path / "store" / "b@x.org" / "to").symlink_to(tmp_path / "state")
    for key in ("a@x.org/identity.json", "b@x.org/to/keys/identity.json"):
        with pytest.raises(TransportError, match="a link, or no folder"):
            store.put(key, b"public")
        assert store.get(key, max_bytes=99) is None
        assert not store.exists(key)
        assert store.stamp(key.rpartition("/")[0]) == 0
        store.delete(key)
        assert store.entries(key.rpartition("/")[0]) == []
        store.remove_folder(key.rpartition("/")[0])
    assert private.read_text() == "private"
    (tmp_path / "mounted").symlink_to(tmp_path / "store")  # the whole store may lie behind one
    assert Store.from_url(str(tmp_path / "mounted")).get("b@x.org/k", max_bytes=1) == b"1"


def left(root, name, *, days, now):
    """Leave a file as a writer does that is killed, so many days before another one was written."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(temporary_name(f"x/{path.name}").removeprefix("x/"))
    path.write_bytes(b"half")
    os.utime(path, (now - 86_400 * days,) * 2)
    return path


def check_left(root, store):
    """Check that of what killed writers left, on the store below ``root``, ours goes when it is old, nothing else."""
    store.put("me@x.org/version.json", b"now")
    store.put("me@x.org/to/you@x.org/parts/whole.ab/00000", b"whole")
    now = (root / "me@x.org" / "version.json").stat().st_mtime
    to = "me@x.org/to/you@x.org"
    names = ["me@x.org/version.json", f"{to}/blobs/update", f"{to}/parts/gone.ab/00000", f"{to}/parts/whole.ab/00000"]
    old = [left(root, name, days=1.01, now=now) for name in names]
    young = [left(root, f"{to}/{name}", days=0.9, now=now) for name in ("status", "parts/young.ab/00000")]
    others = [left(root, name, days=9, now=now) for name in ("you@x.org/identity.json", "top")]
    theirs = left(root.parent / "elsewhere", "file", days=9, now=now)
    (root / "me@x.org" / "to" / "link").symlink_to(theirs.parent)
    (root / "me@x.org" / "to" / "other").symlink_to(root / "you@x.org")
    odd = root / "me@x.org" / ".part-of-something"
    odd.write_bytes(b"")
    os.utime(odd, (0, 0))
    assert store.remove_left("me@x.org", clock="me@x.org/gone") == 0
    assert store.remove_left("me@x.org", clock="me@x.org/version.json") == len(old)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in [*young, *others, theirs, odd])
    assert store.names(f"{to}/parts") == ["whole.ab", "young.ab"]
    assert store.get(f"{to}/parts/whole.ab/00000", max_bytes=9) == b"whole"


def test_what_killed_writers_left_is_removed_when_it_is_old_and_ours(tmp_path):
    check_left(tmp_path / "store", Store.from_url(str(tmp_path / "store")))


def test_where_it_may_not_be_listed_or_deleted_it_stays(tmp_path, monkeypatch):
    store = Store.from_url(str(tmp_path / "store"))
    store.put("me@x.org/version.json", b"now")
    path = left(tmp_path / "store", "me@x.org/a", days=9, now=0)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "no")

    for call in ("list", "remove"):
        with monkeypatch.context() as patched:
            patched.setattr(store._files, call, refuse)
            assert store.remove_left("me@x.org", clock="me@x.org/version.json") == 0
        assert path.exists()


def test_a_session_removes_what_killed_writers_left_once_a_day(pair, monkeypatch):
    place = pair.root / "store"
    path = left(place, f"{OWNER}/to/{RESEARCHER}/blobs/a", days=9, now=time.time())
    again = OwnerSession(pair.owner.settings)
    again.poll()
    assert path.exists()  # it was looked for today
    later = time.time() + 90_000
    monkeypatch.setattr("fedpriv.transport.session.time.time", lambda: later)
    OwnerSession(pair.owner.settings).poll()
    assert not path.exists()
