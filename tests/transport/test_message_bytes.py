"""The bytes inside an envelope: each message counts in one place, is as long as others, and never unpacks to much."""

import contextlib
import gzip
import io
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syft.sync.utils.syftbox_utils import uncompress_data

from fedpriv.errors import UntrustedError
from fedpriv.transport.messages import MAX_UNPACKED_BYTES, PAD_BYTES, Address, pack_message, unpack_message

HERE = Address(sender="micu@x.org", recipient="ada@y.org", box="outbox", number=7)
CONTENT = "proposed_file_changes.json"


def tar(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_json", ".json"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(stream.getvalue())


@given(st.binary(max_size=20_000))
@settings(max_examples=50)
def test_what_was_packed_comes_back_in_its_place_and_syft_reads_it(content):
    packed = pack_message(content, HERE)
    assert unpack_message(packed, HERE) == content
    assert uncompress_data(packed) == content
    assert len(packed) % PAD_BYTES == 0


@pytest.mark.parametrize(
    "other",
    [{"number": 8}, {"number": 6}, {"box": "inbox"}, {"sender": "sicu@x.org"}, {"recipient": "eve@z.org"}],
)
def test_in_any_other_place_it_is_refused(other):
    packed = pack_message(b"{}", HERE)
    with pytest.raises(UntrustedError, match="another number"):
        unpack_message(packed, replace(HERE, **other))


def test_messages_of_similar_length_look_alike():
    assert len({len(pack_message(b"x" * length, HERE)) for length in range(0, 2000, 100)}) == 1


@pytest.mark.parametrize(
    "files",
    [{CONTENT: b"{}"}, {"fedpriv_json": b"{}"}, {CONTENT: b"{}", "fedpriv_json": b"x"}, {}],
    ids=["no address", "no content", "not an address", "nothing"],
)
def test_without_its_address_it_is_refused(files):
    with pytest.raises(UntrustedError):
        unpack_message(tar(**files), HERE)


def test_a_folder_in_place_of_a_file_is_refused():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in (CONTENT, "fedpriv.json"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    with pytest.raises(UntrustedError, match="holds no file"):
        unpack_message(stream.getvalue(), HERE)


def test_a_bomb_is_refused_before_it_unpacks():
    bomb = tar(**{CONTENT: bytes(2 * MAX_UNPACKED_BYTES)})
    assert len(bomb) < 2**20
    with pytest.raises(UntrustedError, match="unpacks to more"):
        unpack_message(bomb, HERE)


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_any_bytes_are_refused_by_name(data):
    with pytest.raises(UntrustedError):
        unpack_message(data, HERE)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
@settings(max_examples=100)
def test_a_changed_byte_is_refused_or_changes_nothing_that_counts(where, value):
    """Envelopes are signed, so this does not happen; the reader must not break when it does."""
    packed = bytearray(pack_message(b'{"a": 1}', HERE))
    packed[where % len(packed)] = value
    with contextlib.suppress(UntrustedError):
        assert unpack_message(bytes(packed), HERE) == b'{"a": 1}'
