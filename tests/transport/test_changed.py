"""Whoever writes to the store without a key can delay blobs, and lose none: their reader says what was changed."""

import json
import os
import shutil
import time

import pytest

from fedpriv.errors import MissingBlobError, TransportError
from fedpriv.files import sha256_hex
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.changed import MOST_NAMED, blob_of, changed_word, read_changed
from fedpriv.transport.spool import Spool
from tests.transport.conftest import OWNER, RESEARCHER

PART = 10_000
NAME = "update-1"


@pytest.fixture
def channels(pair, tmp_path):
    return tuple(
        BlobChannel(
            session.connection, session.client.peer_manager.peer_store, spool=Spool(tmp_path / name), part_bytes=PART
        )
        for name, session in (("own", pair.owner), ("theirs", pair.researcher))
    )


def left(pair):
    return pair.root / "store" / OWNER / "to" / RESEARCHER


def objects(pair):
    return {path.relative_to(left(pair)).as_posix(): path for path in left(pair).rglob("*") if path.is_file()}


def noise(path):
    path.write_bytes(b"noise")


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def too_large(path):
    path.write_bytes(bytes(10**6))


def somewhat_larger(path):
    """By more than what an envelope adds, and by less than a large blob's objects have."""
    path.write_bytes(bytes(90_000))


def link(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("what", [noise, one_bit, too_large, somewhat_larger, link], ids=lambda what: what.__name__)
@pytest.mark.parametrize("size", [300, 5 * PART + 1], ids=["small", "in parts"])
def test_each_object_of_a_blob_that_was_changed_is_put_back(pair, channels, tmp_path, what, size):
    owner, researcher = channels
    data = os.urandom(size)
    reference = owner.send(RESEARCHER, NAME, data)
    for place, path in objects(pair).items():
        if not place.startswith(("blobs/", "parts/")):
            continue
        what(path)
        with pytest.raises(MissingBlobError):
            researcher.receive(OWNER, reference, tmp_path / place)
        assert owner.send_lost(RESEARCHER) == [NAME]
        assert researcher.receive(OWNER, reference, tmp_path / place).read_bytes() == data
        assert owner.send_lost(RESEARCHER) == []
        assert json.loads((pair.root / "store" / RESEARCHER / "to" / OWNER / "changed.json").read_text()) == {
            "objects": {}
        }


def test_one_that_cannot_be_put_back_keeps_no_other_one_waiting(pair, channels, tmp_path):
    owner, researcher = channels
    owner.send(RESEARCHER, "a-1", b"one")
    reference = owner.send(RESEARCHER, "b-1", b"two")
    for name in ("a-1", "b-1"):
        (left(pair) / "blobs" / name).unlink()
    (left(pair) / "blobs" / "a-1" / "in").mkdir(parents=True)
    with pytest.raises(TransportError, match="blobs/a-1"):
        owner.send_lost(RESEARCHER)
    assert researcher.receive(OWNER, reference, tmp_path / "got").read_bytes() == b"two"
    shutil.rmtree(left(pair) / "blobs" / "a-1")


def test_only_the_parts_that_were_changed_are_sent_again(pair, channels, tmp_path, monkeypatch):
    owner, researcher = channels
    reference = owner.send(RESEARCHER, NAME, os.urandom(5 * PART))
    for number in (1, 3):
        one_bit(next((left(pair) / "parts").glob(f"*/{number:05d}")))
    put, names = owner._connection.store.put, []
    monkeypatch.setattr(
        type(owner._connection.store), "put", lambda self, key, data: (names.append(key), put(key, data))
    )
    for _ in range(2):  # the first that is found ends an attempt, and one beside it may be under way
        with pytest.raises(MissingBlobError):
            researcher.receive(OWNER, reference, tmp_path / "got")
        owner.send_lost(RESEARCHER)
        if len([key for key in names if "/parts/" in key]) == 2:
            break
    researcher.receive(OWNER, reference, tmp_path / "got")
    assert sorted(key[-5:] for key in names if "/parts/" in key) == ["00001", "00003"]


@pytest.mark.parametrize("is_started_again", [False, True])
@pytest.mark.parametrize("moved_to", ["{parts}/99999", "{parts}.x/00002", "update-1.0123456789abcdef/00002"])
def test_what_somebody_puts_beside_the_parts_stands_for_none_of_them(
    pair, channels, tmp_path, moved_to, is_started_again
):
    owner, researcher = channels
    data = os.urandom(5 * PART)
    reference = owner.send(RESEARCHER, NAME, data)
    (parts,) = (left(pair) / "parts").iterdir()
    elsewhere = parts.parent / moved_to.format(parts=parts.name)
    elsewhere.parent.mkdir(exist_ok=True)
    (parts / "00002").rename(elsewhere)
    if is_started_again:
        owner = BlobChannel(
            owner._connection, pair.owner.client.peer_manager.peer_store, spool=owner._spool, part_bytes=PART
        )
    assert owner.send_lost(RESEARCHER) == [NAME]
    assert researcher.receive(OWNER, reference, tmp_path / "got").read_bytes() == data
    assert owner.send_lost(RESEARCHER) == []


def test_a_false_word_takes_nothing_away_for_good(pair, channels, tmp_path):
    owner, researcher = channels
    data = os.urandom(300)
    reference = owner.send(RESEARCHER, NAME, data)
    word = pair.root / "store" / RESEARCHER / "to" / OWNER / "changed.json"
    word.parent.mkdir(parents=True, exist_ok=True)
    others = [path for place, path in objects(pair).items() if not place.startswith("blobs/")]
    before = [path.read_bytes() for path in others]
    for said in (
        changed_word({f"blobs/{NAME}": "0" * 64, "blobs/other": ""}),
        b'{"objects": {"../../bundle.json": ""}}',
        b'{"objects": {"inbox/00001": ""}}',
        b'{"objects": 3}',
        b"[" * 10_000,
        bytes(10**6),
    ):
        word.write_bytes(said)
        assert owner.send_lost(RESEARCHER) == []
    assert [path.read_bytes() for path in others] == before
    assert researcher.receive(OWNER, reference, tmp_path / "got").read_bytes() == data


def test_a_recipient_that_says_so_again_and_again_costs_less_and_less(pair, channels, monkeypatch):
    """A hostile one may name what lies there rightly: each time it would be read, taken away and sent again."""
    owner, _ = channels
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    owner.send(RESEARCHER, NAME, b"x" * 300)
    word = pair.root / "store" / RESEARCHER / "to" / OWNER / "changed.json"
    word.parent.mkdir(parents=True, exist_ok=True)
    sent = []
    for _ in range(120):
        lying = (left(pair) / "blobs" / NAME).read_bytes()
        word.write_bytes(changed_word({f"blobs/{NAME}": sha256_hex(lying)}))
        if owner.send_lost(RESEARCHER):
            sent.append(now[0] - 1000.0)
        now[0] += 30.0
    assert sent == [0.0, 30.0, 90.0, 210.0, 450.0, 930.0, 1890.0]


def test_of_many_that_were_changed_the_last_are_named(pair, channels):
    _, researcher = channels
    places = [f"parts/{NAME}.{'0' * 16}/{number:05d}" for number in range(MOST_NAMED + 5)]
    for place in places:
        researcher._say_changed(OWNER, place, "")
    store = pair.owner.connection.store
    assert list(read_changed(store, f"{RESEARCHER}/to/{OWNER}/changed.json")) == places[5:]
    assert {blob_of(place) for place in places} == {NAME}
