"""A vault opens with its passphrase and as a whole, or not at all."""

import io
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ConfigError, ExistsError, UntrustedError
from fedpriv.protection import vault as module
from fedpriv.protection.vault import VaultReader, VaultWriter, new_vault, require_vault

PASSPHRASE = "five quiet words nobody guesses"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """The least cost of scrypt that is read, and small chunks: the form is the same."""
    original = module._Head

    def head(**values):
        return original(**({"n": 2**14} | values))

    head.model_validate_json = original.model_validate_json
    monkeypatch.setattr(module, "_Head", head)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(module, "_derive", cache(module._derive))


def written(data, passphrase=PASSPHRASE, piece=50):
    stream = io.BytesIO()
    writer = VaultWriter(stream, passphrase)
    for start in range(0, len(data), piece):
        writer.write(data[start : start + piece])
    writer.finish()
    return stream.getvalue()


def opened(data, passphrase=PASSPHRASE):
    reader = VaultReader(io.BytesIO(data), passphrase)
    found = reader.read()
    reader.finish()
    return found


@settings(max_examples=12)
@given(st.binary(max_size=300), st.integers(1, 130))
def test_what_was_written_comes_back_whatever_the_pieces(data, piece):
    assert opened(written(data, piece=piece)) == data


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 129])
def test_sizes_around_a_chunk_and_reading_in_parts(size):
    data = bytes(range(size))
    reader = VaultReader(io.BytesIO(written(data)), PASSPHRASE)
    assert b"".join(iter(lambda: reader.read(7), b"")) == data


def test_a_wrong_passphrase_is_a_sentence():
    with pytest.raises(UntrustedError, match="The passphrase is wrong"):
        opened(written(b"x"), PASSPHRASE + ".")


def test_a_letter_may_be_typed_in_two_ways():
    assert opened(written(b"x", "Schl\u00fcssel f\u00fcr alle"), "Schlu\u0308ssel fu\u0308r alle") == b"x"


def test_no_byte_can_be_changed():
    data = written(bytes(150))
    for place in (*range(0, 17), *range(17, len(data), 11), len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(UntrustedError):
            opened(bytes(changed))


def test_nothing_can_be_cut_off_or_added():
    data = written(bytes(200))
    for size in (*range(0, 300, 23), *range(300, len(data), 7), len(data) - 1):
        with pytest.raises(UntrustedError):
            opened(data[:size])
    with pytest.raises(UntrustedError):
        opened(data + b"\0")


def test_chunks_cannot_change_places_or_be_left_out():
    data = written(bytes(64) + bytes([1]) * 64 + bytes([2]) * 64)
    chunk = 64 + 16
    start = len(data) - 3 * chunk
    first, second, third = (data[start + n * chunk : start + (n + 1) * chunk] for n in range(3))
    for chunks in ((second, first, third), (first, third), (first, second), (third,)):
        with pytest.raises(UntrustedError):
            opened(data[:start] + b"".join(chunks))


def test_two_vaults_of_the_same_differ_and_show_nothing():
    data = b"a secret key" * 4
    one, other = written(data), written(data)
    assert one[200:] != other[200:]
    assert b"secret" not in one


def test_an_extravagant_cost_is_not_paid():
    """Whoever sends a file must not make the reader fill its memory."""
    data = written(b"x").replace(b'"n":16384', b'"n":1073741824')
    with pytest.raises(UntrustedError, match="head is damaged"):
        opened(data)


def test_the_file_is_private_there_once_and_whole(tmp_path):
    path = tmp_path / "b.vault"
    with new_vault(path, PASSPHRASE) as vault:
        vault.write(b"data")
        assert not path.exists()
    assert path.stat().st_mode & 0o777 == 0o600
    assert opened(path.read_bytes()) == b"data"
    with pytest.raises(ExistsError), new_vault(path, PASSPHRASE):
        pass
    with pytest.raises(RuntimeError), new_vault(tmp_path / "c.vault", PASSPHRASE):
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.vault"]


def test_a_short_passphrase_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="fewer than 12"), new_vault(tmp_path / "b", "eleven char"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_usual_cost_takes_128_mib():
    assert 128 * module._N * 8 == 128 * 2**20


def test_another_file_is_refused_before_a_passphrase_is_asked_for(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"abc")
    with pytest.raises(UntrustedError, match="no backup of fedpriv"):
        require_vault(path)
    path.write_bytes(written(b"data"))
    require_vault(path)
