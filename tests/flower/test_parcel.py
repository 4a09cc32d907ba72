"""What one message holds, and what is no message of ours."""

import json

import pytest
from exchange_files import ME, OLD_US, YOU, put
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.flower.relay.mirror import RelayError, Shelf, Stamp
from fedpriv.flower.relay.parcel import Parcel, pack

STAMP = Stamp(size=3, time_us=OLD_US)
PARCEL = Parcel(
    sender=ME,
    recipient=YOU,
    left={"version.json": STAMP},
    held={"a": STAMP},
    files=[("version.json", b"123")],
    wait_s=2,
)


def test_a_parcel_comes_out_as_it_went_in():
    back = Parcel.of(PARCEL.letter(), [b"123"])
    assert (back.sender, back.recipient, back.left, back.held) == (ME, YOU, PARCEL.left, PARCEL.held)
    assert list(back.files) == list(PARCEL.files)
    assert (back.wait_s, back.size) == (2.0, 3)
    assert Parcel.of(Parcel(sender=ME).letter(), []).left is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fedpriv": 2}, "different versions"),
        ({"files": ["version.json", "b"]}, "other files"),
        ({"files": [1]}, "other files"),
        ({"left": {}}, "no list"),
        ({"held": [["a", -1, 0]]}, "not a name, a size and a time"),
        ({"held": [["a", True, 0]]}, "not a name, a size and a time"),
        ({"wait_s": -1}, "time to wait"),
        ({"wait_s": 1e9}, "time to wait"),
        ({"wait_s": "1"}, "time to wait"),
    ],
)
def test_a_letter_that_is_not_ours_is_refused(change, sentence):
    letter = json.dumps(json.loads(PARCEL.letter()) | change)
    with pytest.raises(RelayError, match=sentence):
        Parcel.of(letter, [b"123"])


@given(letter=st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_a_parcel_or_refused(letter):
    with pytest.raises(RelayError):
        Parcel.of(letter, [])


def test_as_much_goes_into_one_message_as_fits_and_at_least_one_file(tmp_path):
    shelf = Shelf(root=tmp_path, owner=ME, reader=YOU)
    for number in range(1, 5):
        put(tmp_path, f"{ME}/to/{YOU}/outbox/{number:012d}", b"x" * 10)
    put(tmp_path, f"{ME}/to/{YOU}/blobs/update", b"x" * 100)
    left = shelf.listing()
    assert [name.rpartition("/")[2] for name, _ in pack(shelf, left, {}, most_bytes=50)] == ["update"]
    held = {f"to/{YOU}/blobs/update": left[f"to/{YOU}/blobs/update"]}
    names = [name.rpartition("/")[2] for name, _ in pack(shelf, left, held, most_bytes=25)]
    assert names == ["000000000001", "000000000002"]


def test_messages_wait_for_a_file_that_was_replaced_meanwhile(tmp_path):
    shelf = Shelf(root=tmp_path, owner=ME, reader=YOU)
    put(tmp_path, f"{ME}/to/{YOU}/outbox/{1:012d}")
    put(tmp_path, f"{ME}/to/{YOU}/blobs/update", b"old")
    put(tmp_path, f"{ME}/to/{YOU}/status", b"old")
    left = shelf.listing()
    put(tmp_path, f"{ME}/to/{YOU}/status", b"new", OLD_US + 1)
    assert [name.rpartition("/")[2] for name, _ in pack(shelf, left, {})] == ["update", f"{1:012d}"]
    put(tmp_path, f"{ME}/to/{YOU}/blobs/update", b"new", OLD_US + 1)
    assert pack(shelf, left, {}) == []
