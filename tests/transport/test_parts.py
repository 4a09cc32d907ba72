"""Large blobs: what arrived stays, only what is missing is moved, and no part takes the place of another."""

import dataclasses
import json
import os
import shutil
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import TransportError, UnreachableError, UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.study.messages import MAX_BLOB_BYTES, BlobRef
from fedpriv.transport import retrying, under_way
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.pacing import Pace
from fedpriv.transport.parts import MAX_INDEX_BYTES, PART_BYTES, PartsIndex, Source
from fedpriv.transport.spool import Spool
from tests.transport.conftest import OWNER, RESEARCHER, make_pair

PART = 10_000
NAME = "update-1"
LEFT = f"store/{OWNER}/to/{RESEARCHER}"


class CutFiles:
    """A link that is cut whenever so many bytes went over it, in the middle of whatever is moved then."""

    def __init__(self, files, every_bytes):
        self._files, self._every, self._left = files, every_bytes, every_bytes
        self.moved = {"write": [], "read": []}

    def __getattr__(self, name):
        return getattr(self._files, name)

    def _pass(self, size):
        self._left -= size
        if self._left < 0:
            self._left = self._every
            raise UnreachableError("cut")

    def write(self, path, data):
        self._pass(len(data))
        self._files.write(path, data)
        self.moved["write"].append(path.rpartition("/")[2])

    def read(self, path, limit):
        data = self._files.read(path, limit)
        self._pass(len(data))
        self.moved["read"].append(path.rpartition("/")[2])
        return data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(made):
    """The same two for all tests, with nothing of the owner's on the store."""
    for name in (f"{LEFT}/blobs", f"{LEFT}/parts", "got"):
        shutil.rmtree(made.root / name, ignore_errors=True)
    return made


@pytest.fixture
def channels(pair):
    """The owner's and the researcher's blobs, in small parts."""
    return tuple(
        BlobChannel(session.connection, session.client.peer_manager.peer_store, part_bytes=PART)
        for session in (pair.owner, pair.researcher)
    )


@pytest.fixture
def no_retries(monkeypatch):
    monkeypatch.setattr(retrying, "ATTEMPTS", 1)


def cut(session, monkeypatch, every_bytes):
    files = CutFiles(session.connection.store._files, every_bytes)
    monkeypatch.setattr(session.connection.store, "_files", files)
    return files


def on_store(pair):
    """Return the names of the owner's blobs and parts on the store."""
    root = pair.root / LEFT
    files = [path for folder in ("blobs", "parts") for path in (root / folder).rglob("*") if path.is_file()]
    return sorted(path.relative_to(root).as_posix() for path in files)


def until_done(work):
    for times in range(100):
        try:
            return work(), times
        except TransportError:
            continue
    raise AssertionError("it does not get on")


@pytest.mark.parametrize("size", [PART + 1, 2 * PART, 5 * PART - 1, 7 * PART + 123])
def test_a_large_blob_arrives_from_memory_and_from_a_file(pair, channels, tmp_path, size):
    owner, researcher = channels
    data = os.urandom(size)
    (tmp_path / "sealed").write_bytes(data)
    for sent in (data, tmp_path / "sealed"):
        reference = owner.send(RESEARCHER, NAME, sent)
        assert reference == BlobRef(name=NAME, size_bytes=size, sha256=sha256_hex(data))
        target = tmp_path / f"got-{isinstance(sent, bytes)}" / "x"
        assert researcher.receive(OWNER, reference, target).read_bytes() == data
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert [path.name for path in target.parent.iterdir()] == ["x"]
    everything = b"".join(p.read_bytes() for p in (pair.root / "store").rglob("*") if p.is_file())
    assert data[:64] not in everything


def test_a_blob_of_one_part_is_one_object_and_nothing_is_listed(pair, channels, monkeypatch, tmp_path):
    owner, researcher = channels
    monkeypatch.setattr(type(pair.owner.connection.store), "_entries", None)
    reference = owner.send(RESEARCHER, NAME, bytes(PART))
    assert on_store(pair) == [f"blobs/{NAME}"]
    assert researcher.receive(OWNER, reference, tmp_path / "x").read_bytes() == bytes(PART)


def test_over_a_link_that_is_cut_every_few_parts_each_part_is_moved_once(
    pair, channels, monkeypatch, tmp_path, no_retries
):
    owner, researcher = channels
    data = os.urandom(20 * PART + 5)
    up, down = cut(pair.owner, monkeypatch, 5 * PART), cut(pair.researcher, monkeypatch, 5 * PART)
    reference, cuts = until_done(lambda: owner.send(RESEARCHER, NAME, data))
    assert cuts >= 4
    target, cuts = until_done(lambda: researcher.receive(OWNER, reference, tmp_path / "x"))
    assert cuts >= 4
    assert target.read_bytes() == data
    for moved in (up.moved["write"], down.moved["read"]):
        parts = [name for name in moved if name.isdigit()]
        assert sorted(parts) == [f"{number:05d}" for number in range(21)]


def test_a_link_that_is_cut_is_not_even_seen_where_the_store_is_asked_again(pair, channels, monkeypatch, tmp_path):
    owner, _ = channels
    monkeypatch.setattr(retrying, "FIRST_PAUSE_SECONDS", 0.001)
    files = cut(pair.owner, monkeypatch, 5 * PART)
    owner.send(RESEARCHER, NAME, os.urandom(20 * PART))
    assert sum(name.isdigit() for name in files.moved["write"]) == 20


def test_what_a_kill_left_of_a_partial_file_is_looked_at_before_it_is_used(pair, channels, monkeypatch, tmp_path):
    owner, researcher = channels
    data = os.urandom(6 * PART)
    reference = owner.send(RESEARCHER, NAME, data)
    partial = tmp_path / f".x.{reference.sha256[:16]}.partial"
    partial.write_bytes(data[: 2 * PART] + os.urandom(PART) + bytes(PART) + data[4 * PART : 4 * PART + 77])
    (tmp_path / ".x.0123456789abcdef.partial").write_bytes(b"of another blob")
    down = cut(pair.researcher, monkeypatch, 10**9)
    assert researcher.receive(OWNER, reference, tmp_path / "x").read_bytes() == data
    assert sorted(n for n in down.moved["read"] if n.isdigit()) == ["00002", "00003", "00004", "00005"]
    assert not list(tmp_path.glob(".x*"))


def test_sending_again_and_sending_another_leaves_no_parts_behind(pair, channels):
    owner, _ = channels
    first, second = os.urandom(3 * PART), os.urandom(4 * PART)
    owner.send(RESEARCHER, NAME, first)
    owner.send(RESEARCHER, "other", first)
    before = on_store(pair)
    owner.send(RESEARCHER, NAME, first)
    assert on_store(pair) == before
    owner.send(RESEARCHER, NAME, second)
    assert len([path for path in on_store(pair) if f"parts/{NAME}." in path]) == 4
    BlobChannel(owner._connection, owner._peers, part_bytes=PART).remove(RESEARCHER, NAME)  # after a restart
    assert [path for path in on_store(pair) if NAME in path] == []
    owner.remove(RESEARCHER, "other")
    assert on_store(pair) == []


def test_a_part_that_the_store_lost_is_sent_again_and_what_is_on_its_way_is_not(pair, tmp_path, monkeypatch):
    owner, researcher = (
        BlobChannel(s.connection, s.client.peer_manager.peer_store, spool=Spool(tmp_path / str(n)), part_bytes=PART)
        for n, s in enumerate((pair.owner, pair.researcher))
    )
    data = os.urandom(5 * PART)
    reference = owner.send(RESEARCHER, NAME, data)
    (folder,) = (pair.root / LEFT / "parts").iterdir()
    (folder / "00002").unlink()
    up = cut(pair.owner, monkeypatch, 10**9)
    assert owner.send_lost(RESEARCHER) == [NAME]
    assert up.moved["write"] == ["00002", NAME]
    assert owner.send_lost(RESEARCHER) == []
    assert researcher.receive(OWNER, reference, tmp_path / "x").read_bytes() == data
    seen = []
    owner.send(RESEARCHER, "other", os.urandom(5 * PART), on_moved=lambda *_: seen.append(owner.send_lost(RESEARCHER)))
    assert seen == [[]] * 5


# -- what others may have done to it ---------------------------------------------------------------------------------


@pytest.fixture
def sent(pair, channels):
    """A blob of five parts on the store: the folder with them, and a call that fetches it."""
    owner, researcher = channels
    reference = owner.send(RESEARCHER, NAME, os.urandom(4 * PART + 1))
    root = pair.root / LEFT
    (folder,) = (root / "parts").iterdir()
    return folder, lambda: researcher.receive(OWNER, reference, pair.root / "got" / "x")


def test_swapped_parts_are_refused_by_name_and_the_others_kept(pair, sent, monkeypatch):
    folder, fetch = sent
    first, second = (folder / "00001").read_bytes(), (folder / "00002").read_bytes()
    (folder / "00001").write_bytes(second)
    (folder / "00002").write_bytes(first)
    with pytest.raises(UntrustedError, match=r"Part 2 of 5 of update-1 from micu@x.org is not what its index says"):
        fetch()
    assert not (pair.root / "got" / "x").exists()
    (folder / "00001").write_bytes(first)
    (folder / "00002").write_bytes(second)
    down = cut(pair.researcher, monkeypatch, 10**9)
    fetch()
    assert "00000" not in down.moved["read"]


def test_a_missing_part_is_named(sent):
    folder, fetch = sent
    (folder / "00003").unlink()
    with pytest.raises(UntrustedError, match="announced part 4 of 5 of update-1, which is not on the store"):
        fetch()


def test_a_part_that_is_too_large_is_not_read(sent):
    folder, fetch = sent
    (folder / "00000").write_bytes(bytes(10**6))
    with pytest.raises(UntrustedError, match="00000 on the store is larger than"):
        fetch()


def test_a_changed_part_is_refused(sent):
    folder, fetch = sent
    data = (folder / "00004").read_bytes()
    (folder / "00004").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UntrustedError, match="5 of 5"):
        fetch()


def test_a_part_of_an_earlier_version_of_the_blob_is_refused(pair, channels, sent):
    folder, fetch = sent
    old = (folder / "00000").read_bytes()
    owner, researcher = channels
    newer = owner.send(RESEARCHER, NAME, os.urandom(4 * PART + 1))
    assert not folder.exists() or not list(folder.iterdir())
    (next(path for path in folder.parent.iterdir() if list(path.iterdir())) / "00000").write_bytes(old)
    with pytest.raises(UntrustedError, match="1 of 5"):
        researcher.receive(OWNER, newer, pair.root / "newer")
    with pytest.raises(UntrustedError, match="of another blob"):
        fetch()


def test_a_small_blob_in_the_place_of_an_index_is_refused(pair, channels, sent):
    owner, _ = channels
    _, fetch = sent
    owner.send(RESEARCHER, NAME, b"small")
    with pytest.raises(UntrustedError, match="malformed"):
        fetch()
    index = pair.root / LEFT / "blobs" / NAME
    index.write_bytes(b"noise")
    with pytest.raises(UntrustedError, match="The index of update-1 is not from"):
        fetch()
    index.unlink()
    with pytest.raises(UntrustedError, match="announced the index of update-1, which is not on the store"):
        fetch()
    index.write_bytes(bytes(MAX_INDEX_BYTES + 10**6))
    with pytest.raises(UntrustedError, match="larger than"):
        fetch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digests": ["a" * 64] * 4}, "names 4 parts"),
        ({"digests": ["a" * 64] * 6}, "names 6 parts"),
        ({"digests": ["a" * 64] * 3000}, "malformed"),
        ({"digests": []}, "malformed"),
        ({"digests": ["A" * 64] * 5}, "malformed"),
        ({"part_bytes": 1}, "parts of 1 bytes"),
        ({"part_bytes": 0}, "malformed"),
        ({"size_bytes": 4 * PART + 2}, "of another blob"),
        ({"sha256": "b" * 64}, "of another blob"),
        ({"more": 1}, "malformed"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(change, reason):
    reference = BlobRef(name=NAME, size_bytes=4 * PART + 1, sha256="c" * 64)
    fields = {
        "size_bytes": reference.size_bytes,
        "sha256": reference.sha256,
        "part_bytes": PART,
        "digests": ["a" * 64] * 5,
    }
    assert PartsIndex.read(json.dumps(fields).encode(), reference, part_bytes=PART, sender=OWNER).count == 5
    with pytest.raises(UntrustedError, match=reason):
        PartsIndex.read(json.dumps(fields | change).encode(), reference, part_bytes=PART, sender=OWNER)


def test_a_sender_that_lies_about_the_whole_is_found_out_at_the_end(channels, tmp_path, monkeypatch):
    """Its parts are as its index says, and its message and its index name another digest of the whole."""
    owner, researcher = channels
    data = os.urandom(2 * PART)
    real = Source.of

    def lie(data, *, part_bytes):
        return dataclasses.replace(real(data, part_bytes=part_bytes), sha256="d" * 64)

    monkeypatch.setattr(Source, "of", lie)
    lying = owner.send(RESEARCHER, NAME, data)
    with pytest.raises(UntrustedError, match="do not make the blob"):
        researcher.receive(OWNER, lying, tmp_path / "got" / "x")
    assert list((tmp_path / "got").iterdir()) == []


def test_a_file_that_changes_while_it_is_sent_is_not_announced(tmp_path):
    path = tmp_path / "sealed"
    path.write_bytes(os.urandom(4 * PART))
    source = Source.of(path, part_bytes=PART)
    path.write_bytes(os.urandom(4 * PART))
    with pytest.raises(UntrustedError, match="was changed while it was sent"):
        source.part(2)


def test_whoever_is_told_how_far_it_is_may_end_it(channels, pair):
    owner, _ = channels
    told = []

    def stop(done, total):
        told.append((done, total))
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        owner.send(RESEARCHER, NAME, os.urandom(30 * PART), on_moved=stop)
    assert told == [(PART, 30 * PART), (2 * PART, 30 * PART)]
    assert len(on_store(pair)) < 30, "what was under way then may have arrived, the rest was not begun"


@given(st.integers(1, 2**33))
@settings(max_examples=200)
def test_the_parts_of_any_size_make_the_whole(size):
    index = PartsIndex(
        size_bytes=min(size, MAX_BLOB_BYTES), sha256="a" * 64, part_bytes=PART_BYTES, digests=("b" * 64,)
    )
    sizes = [index.size_of(number) for number in range(index.count)]
    assert sum(sizes) == index.size_bytes
    assert set(sizes[:-1]) <= {PART_BYTES}
    assert 0 < sizes[-1] <= PART_BYTES


def test_an_index_of_the_largest_blob_is_readable():
    count = MAX_BLOB_BYTES // PART_BYTES
    index = PartsIndex(size_bytes=MAX_BLOB_BYTES, sha256="a" * 64, part_bytes=PART_BYTES, digests=("b" * 64,) * count)
    assert len(index.model_dump_json()) < MAX_INDEX_BYTES


# -- pacing ----------------------------------------------------------------------------------------------------------


def test_a_limit_holds_on_average_and_none_is_none(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fedpriv.transport.pacing.time.monotonic", lambda: now[0])
    monkeypatch.setattr("fedpriv.transport.pacing.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    pace = Pace(8.0)  # a megabyte a second
    for _ in range(10):
        pace.wait(500_000)
    assert now[0] == pytest.approx(104.5)
    now[0] += 60.0  # what was not used is not saved up
    for _ in range(3):
        pace.wait(1_000_000)
    assert now[0] == pytest.approx(166.5)
    for _ in range(10):
        Pace(None).wait(10**9)
    assert now[0] == pytest.approx(166.5)


class CountingFiles:
    """Counts how many parts are under way at once: the first two wait for each other, later ones for as many as may."""

    def __init__(self, files, wanted):
        self._files, self._wanted = files, wanted
        self._changed, self._begun, self._now, self.most = threading.Condition(), 0, 0, 0

    def __getattr__(self, name):
        return getattr(self._files, name)

    def write(self, path, data):
        with self._changed:
            self._begun, self._now = self._begun + 1, self._now + 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            if len(data) >= PART:
                goal = 2 if self._begun <= 2 else self._wanted
                self._changed.wait_for(lambda: self.most >= goal, timeout=20)
        self._files.write(path, data)
        with self._changed:
            self._now -= 1


@pytest.mark.parametrize(("quick_s", "most"), [(60.0, 4), (0.0, 2)], ids=["a quick link", "a slow link"])
def test_two_parts_are_under_way_and_two_more_where_they_are_quick(channels, monkeypatch, tmp_path, quick_s, most):
    sender, taker = channels
    monkeypatch.setattr(under_way, "_QUICK_S", quick_s)
    files = CountingFiles(sender._connection.store._files, wanted=most)
    monkeypatch.setattr(sender._connection.store, "_files", files)
    reference = sender.send(RESEARCHER, NAME, data := os.urandom(12 * PART))
    assert files.most == most
    assert taker.receive(OWNER, reference, tmp_path / "got").read_bytes() == data
