"""Copies between exchange folders: what is missing, what is taken, and what is refused."""

import contextlib
import string

import pytest
from exchange_files import ME, OLD_US, OTHER, YOU, put
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.flower.relay import mirror
from fedpriv.flower.relay.mirror import RelayError, Shelf, Stamp, missing
from fedpriv.transport import store


@pytest.fixture
def ours(tmp_path):
    return Shelf(root=tmp_path / "here", owner=ME, reader=YOU)


@pytest.fixture
def theirs(tmp_path):
    return Shelf(root=tmp_path / "there", owner=ME, reader=YOU)


def carry(source, target):
    left, held = source.listing(), target.listing()
    names = missing(left, held)
    target.receive(left, [(name, source.read(name, left[name])) for name in names])
    return names


def test_everything_for_the_reader_is_copied_and_nothing_for_anybody_else(ours, theirs):
    for name in ("version.json", "identity.json", "collections/mock/notes--ab12/notes.csv", f"to/{YOU}/blobs/update-1"):
        put(ours.root, f"{ME}/{name}", name.encode())
    put(ours.root, f"{ME}/to/{OTHER}/blobs/update-1")
    put(ours.root, f"{OTHER}/version.json")
    put(ours.root, f"{ME}/.part-123")
    carry(ours, theirs)
    found = sorted(str(path.relative_to(theirs.root)) for path in theirs.root.rglob("*") if path.is_file())
    assert found == [
        f"{ME}/collections/mock/notes--ab12/notes.csv",
        f"{ME}/identity.json",
        f"{ME}/to/{YOU}/blobs/update-1",
        f"{ME}/version.json",
    ]
    assert carry(ours, theirs) == []
    assert ours.listing() == theirs.listing()


def test_messages_go_last_and_in_their_order(ours, theirs):
    for number in (2, 1, 10):
        put(ours.root, f"{ME}/to/{YOU}/outbox/{number:012d}")
    put(ours.root, f"{ME}/to/{YOU}/status")
    put(ours.root, f"{ME}/to/{YOU}/blobs/update-9")
    names = carry(ours, theirs)
    assert [name.rpartition("/")[2] for name in names] == [
        "update-9",
        "status",
        "000000000001",
        "000000000002",
        "000000000010",
    ]


def test_a_file_that_was_replaced_or_removed_is_so_at_the_other_side_too(ours, theirs):
    put(ours.root, f"{ME}/to/{YOU}/status", b"one")
    put(ours.root, f"{ME}/to/{YOU}/inbox/{1:012d}")
    carry(ours, theirs)
    put(ours.root, f"{ME}/to/{YOU}/status", b"two", OLD_US + 1)
    (ours.root / ME / "to" / YOU / "inbox" / f"{1:012d}").unlink()
    assert carry(ours, theirs) == [f"to/{YOU}/status"]
    assert (theirs.root / ME / "to" / YOU / "status").read_bytes() == b"two"
    assert list(theirs.listing()) == [f"to/{YOU}/status"]


def test_a_file_that_has_just_been_written_waits_for_the_next_look_and_keeps_its_copy(ours, theirs):
    name = f"to/{YOU}/status"
    put(ours.root, f"{ME}/{name}", b"one")
    carry(ours, theirs)
    (ours.root / ME / name).write_bytes(b"two")
    assert carry(ours, theirs) == []
    assert (theirs.root / ME / name).read_bytes() == b"one"


def test_a_file_that_is_another_one_by_now_is_not_read(ours):
    path = put(ours.root, f"{ME}/version.json", b"one")
    stamp = ours.listing()["version.json"]
    assert ours.read("version.json", stamp) == b"one"
    put(ours.root, f"{ME}/version.json", b"two", OLD_US + 1)
    assert ours.read("version.json", stamp) is None
    path.unlink()
    assert ours.read("version.json", stamp) is None


@pytest.mark.parametrize(
    "name",
    [
        "../researcher@lab.example/version.json",
        "/etc/passwd",
        f"to/{OTHER}/inbox/000000000001",
        "to/../../x",
        "",
        "a//b",
        "a/./b",
        ".ssh/keys",
        "a\x00b",
        "a/b/c/d/e/f/g",
        "x" * 201,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(theirs, name):
    with pytest.raises(RelayError, match="is no name"):
        theirs.receive({name: Stamp(size=1, time_us=OLD_US)}, [(name, b"x")])
    assert not theirs.root.exists() or not [path for path in theirs.root.rglob("*") if path.is_file()]


def test_a_symbolic_link_is_neither_followed_nor_sent(ours, theirs, tmp_path):
    secret = put(tmp_path, "keys/identity.json", b"secret")
    (ours.root / ME).mkdir(parents=True)
    (ours.root / ME / "identity.json").symlink_to(secret)
    (ours.root / ME / "collections").symlink_to(secret.parent)
    assert ours.listing() == {}
    (theirs.root / ME).mkdir(parents=True)
    (theirs.root / ME / "collections").symlink_to(secret.parent)
    with pytest.raises(RelayError, match="symbolic link"):
        theirs.receive({"collections/x": Stamp(size=1, time_us=OLD_US)}, [("collections/x", b"x")])
    assert sorted(path.name for path in secret.parent.iterdir()) == ["identity.json"]


def test_what_was_not_announced_or_is_too_much_is_refused(tmp_path):
    shelf = Shelf(root=tmp_path, owner=ME, reader=YOU, most_bytes=10)
    with pytest.raises(RelayError, match="not announced"):
        shelf.receive({"version.json": Stamp(size=1, time_us=OLD_US)}, [("identity.json", b"x")])
    with pytest.raises(RelayError, match="another size"):
        shelf.receive({"version.json": Stamp(size=1, time_us=OLD_US)}, [("version.json", b"xx")])
    with pytest.raises(RelayError, match="more here than 10 bytes"):
        shelf.receive({"a": Stamp(size=6, time_us=1), "b": Stamp(size=5, time_us=1)}, [])


@pytest.mark.parametrize("owner", ["", "micu", "../x@y", "a@b/../c", "A@b", YOU, "x@..", "x@y..z"])
def test_who_is_no_address_or_ourselves_has_no_shelf(tmp_path, owner):
    with pytest.raises(RelayError):
        Shelf(root=tmp_path, owner=owner, reader=YOU)


def test_the_relay_takes_the_names_that_a_store_takes():
    """It may not import the store: Flower ships it alone."""
    assert mirror._PART.pattern == store._PART.pattern


NAMES = st.lists(st.text(string.ascii_letters + "./@-_", max_size=12), min_size=1, max_size=4).map("/".join)


@given(name=NAMES)
def test_whatever_the_name_no_file_appears_outside_the_sender_s_folder(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("exchange")
    shelf = Shelf(root=root / "box", owner=ME, reader=YOU)
    with contextlib.suppress(RelayError, OSError):
        shelf.receive({name: Stamp(size=1, time_us=OLD_US)}, [(name, b"x")])
    written = [path for path in root.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(root / "box" / ME) for path in written)
    assert all(not path.is_relative_to(root / "box" / ME / "to" / OTHER) for path in written)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8)


@given(value=JSON)
def test_a_listing_is_a_listing_or_refused(value):
    try:
        listing = mirror.listing_from_json(value)
    except RelayError:
        return
    assert sorted(mirror.listing_as_json(listing)) == sorted(mirror.listing_as_json(mirror.listing_from_json(value)))
    assert all(stamp.size >= 0 and stamp.time_us >= 0 for stamp in listing.values())
