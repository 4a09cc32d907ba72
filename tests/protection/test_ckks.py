from __future__ import annotations

import numpy as np
import pytest
import tenseal as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ContainerError, ProtectionError, TamperedError, UntrustedError
from fedpriv.protection import ckks
from fedpriv.protection.ckks import (
    LARGEST,
    ROW_BYTES,
    VALUES,
    CkksAdder,
    CkksOpener,
    CkksSealer,
    CkksShape,
    load_public,
    load_vector,
    make_ckks_keys,
)


@pytest.fixture(scope="module")
def keys():
    return make_ckks_keys()


@pytest.fixture(scope="module")
def rows(keys):
    sealer = CkksSealer(keys[0])
    return [sealer.seal(0, np.full(5, 0.25 * sign, np.float32)).rows for sign in (1, 2)]


@pytest.mark.parametrize("number", [1, VALUES, VALUES + 1])
def test_sums_at_block_edges(keys, number):
    values = np.linspace(-1, 1, number, dtype=np.float32)
    sealer = CkksSealer(keys[0])
    total = CkksAdder(keys[0]).add([sealer.seal(0, factor * values).rows for factor in (1, 2)])
    assert total.shape == (-(-number // VALUES), CkksShape().sum_row_bytes(2))
    np.testing.assert_allclose(CkksOpener(*keys, 2).open(0, total, number), 3 * values, atol=1e-6)


def test_the_aggregators_bytes_decrypt_nothing(keys, rows):
    context = load_public(keys[0])
    assert (context.is_private(), context.has_secret_key()) == (False, False)
    assert (context.has_galois_keys(), context.has_relin_keys()) == (False, False)
    with pytest.raises(ValueError, match="secret"):
        load_vector(context, rows[0][0]).decrypt()
    other = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    guess = load_vector(context, rows[0][0]).decrypt(other.secret_key())
    assert not np.allclose(guess[:5], 0.25, atol=1)


def test_a_public_key_with_a_secret_in_it_or_of_another_scale_is_refused(keys):
    other = ts.context_from(keys[0])
    other.global_scale = 2.0**30
    for public in (keys[1], other.serialize(save_secret_key=False)):
        with pytest.raises(UntrustedError, match="not only public"):
            CkksAdder(public)
    for public in (b"", b"x" * 1000, keys[0][:1000]):
        with pytest.raises(UntrustedError):
            CkksSealer(public)


def test_a_secret_that_is_missing_damaged_or_of_another_key_is_refused(keys):
    for secret in (b"", b"x" * 100, keys[1][:1000], keys[0], make_ckks_keys()[1]):
        with pytest.raises(UntrustedError):
            CkksOpener(keys[0], secret, 2)


@pytest.mark.parametrize("clients", [1, 3])
def test_another_number_of_updates_is_found(keys, rows, clients):
    total = CkksAdder(keys[0]).add(rows)
    CkksOpener(*keys, 2).open(0, total, 5)
    with pytest.raises(TamperedError, match="manifest"):
        CkksOpener(*keys, clients).open(0, total, 5)


def changed(row: np.ndarray, place: int, value: int) -> np.ndarray:
    row = row.copy()
    row[0, place] = value
    return row


@pytest.mark.parametrize(
    "change",
    [
        np.zeros_like,
        lambda r: r[:, :-1],
        lambda r: np.full_like(r, 255),
        lambda r: changed(r, -1, 1),
        lambda r: changed(r, 2, 0),
        lambda r: changed(r, 3, 1),
        lambda r: changed(r, 4, 255),
        lambda r: np.hstack([r[:, :4], np.roll(r[:, 4:], 1)]),
    ],
)
def test_wrong_rows_are_refused(keys, rows, change):
    bad = change(rows[0])
    with pytest.raises(ContainerError):
        CkksAdder(keys[0]).add([rows[1], bad])
    with pytest.raises(ContainerError):
        CkksOpener(*keys, 2).open(0, bad, 5)


def test_a_vector_of_fewer_slots_is_refused(keys):
    context = load_public(keys[0])
    data = ts.ckks_vector(context, [1.0] * 4095).serialize()
    row = np.zeros(ROW_BYTES, np.uint8)
    row[:4] = np.frombuffer(len(data).to_bytes(4, "little"), np.uint8)
    row[4 : 4 + len(data)] = np.frombuffer(data, np.uint8)
    with pytest.raises(ContainerError, match="4095 slots"):
        CkksAdder(keys[0]).add([row[np.newaxis]])


def ciphertext_of(row: np.ndarray) -> bytes:
    return row[4 : 4 + int.from_bytes(row[:4].tobytes(), "little")].tobytes()


def row_of(ciphertext: bytes) -> np.ndarray:
    data = len(ciphertext).to_bytes(4, "little") + ciphertext
    return np.frombuffer(data.ljust(ROW_BYTES, b"\0"), np.uint8)[np.newaxis]


@pytest.mark.parametrize("clients", [2, 5])
def test_sums_open_within_the_noise(keys, clients):
    updates = np.random.default_rng(clients).uniform(-1, 1, (clients, VALUES)).astype(np.float32)
    sealer = CkksSealer(keys[0])
    opened = CkksOpener(*keys, clients).open(
        0, CkksAdder(keys[0]).add(sealer.seal(0, update).rows for update in updates), VALUES
    )
    assert (opened.dtype, opened.shape) == (np.float64, (VALUES,))
    error = opened - updates.astype(np.float64).sum(axis=0)
    assert float(np.abs(error).max()) < 2e-8 * clients**0.5
    assert 5e-10 < float(np.sqrt((error**2).mean())) / clients**0.5 < 2.5e-9


def test_a_row_is_a_length_what_tenseal_writes_and_zeros(keys, rows):
    ciphertext = ciphertext_of(rows[0][0])
    assert rows[0].tobytes() == row_of(ciphertext).tobytes()
    slots = ts.ckks_vector_from(ts.context_from(keys[1]), ciphertext).decrypt()
    np.testing.assert_allclose(slots, [0.25] * 5 + [0.0] * (VALUES - 5) + [1.0], atol=1e-7)
    again = CkksSealer(keys[0]).seal(0, np.full(5, 0.25, np.float32)).rows
    assert ciphertext_of(again[0]) != ciphertext


def test_the_padding_makes_the_baseline_less_than_half_a_percent_worse(keys):
    assert 57.5 < CkksShape().row_bytes / CkksShape().width < 57.6
    sealed = CkksSealer(keys[0]).seal(0, np.random.default_rng(0).normal(size=20 * VALUES).astype(np.float32)).rows
    sizes = [len(ciphertext_of(row)) for row in [*sealed, *CkksAdder(keys[0]).add([sealed, sealed[::-1]])]]
    assert float(np.mean(sizes)) * 1.005 > ROW_BYTES
    assert max(sizes) < ROW_BYTES - 4 - 150


def test_a_ciphertext_that_does_not_fit_is_made_again(keys, monkeypatch):
    sealer = CkksSealer(keys[0])
    monkeypatch.setattr(ckks, "ROW_BYTES", 235_150 + 4)  # about a fifth is larger
    assert sealer.seal(0, np.zeros(20 * VALUES, np.float32)).rows.shape == (20, 235_154)
    monkeypatch.setattr(ckks, "ROW_BYTES", 200_000)  # all are
    with pytest.raises(ProtectionError, match="larger"):
        sealer.seal(0, np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("degree", "bits", "scale"),
    [
        (16384, (60, 40, 40), 2.0**40),
        (8192, (50, 40, 50), 2.0**40),
        (8192, (60, 40), 2.0**40),
        (8192, (60, 40, 40), 2.0**30),
        (8192, (60, 40, 40), None),
    ],
)
def test_keys_of_other_parameters_are_refused(keys, degree, bits, scale):
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=list(bits))
    if scale:
        context.global_scale = scale
    with pytest.raises(UntrustedError, match="other parameters"):
        load_public(context.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False))
    with pytest.raises(UntrustedError, match="do not fit"):
        secret = context.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False)
        CkksOpener(keys[0], secret, 2)


@pytest.mark.parametrize(("count", "tampered"), [(1.002, True), (0.998, True), (0.0, True), (1.0, False)])
def test_a_wrong_count_is_tampering(keys, rows, count, tampered):
    vector = ts.ckks_vector(load_public(keys[0]), [0.25] * 5 + [0.0] * (VALUES - 5) + [count])
    total = CkksAdder(keys[0]).add([rows[0], row_of(vector.serialize())])
    if tampered:
        with pytest.raises(TamperedError, match="manifest"):
            CkksOpener(*keys, 2).open(0, total, 5)
    else:
        np.testing.assert_allclose(CkksOpener(*keys, 2).open(0, total, 5), 0.5, atol=1e-7)


def test_a_missing_update_in_one_block_and_another_key_are_tampering(keys, rows):
    total = CkksAdder(keys[0]).add(rows)
    with pytest.raises(TamperedError, match="manifest"):
        CkksOpener(*keys, 2).open(0, np.concatenate([total, rows[0], total]), 2 * VALUES + 5)
    with pytest.raises(TamperedError, match="manifest"):
        CkksOpener(*make_ckks_keys(), 2).open(0, total, 5)


@pytest.mark.parametrize("kept", [-1, 200_000, 1000, 0])
def test_truncated_ciphertexts_are_refused(keys, rows, kept):
    for adds in (
        [row_of(ciphertext_of(rows[0][0])[:kept]), rows[1]],
        [rows[1], row_of(ciphertext_of(rows[0][0])[:kept])],
    ):
        with pytest.raises(ContainerError):
            CkksAdder(keys[0]).add(adds)


def test_ciphertexts_that_cannot_be_added_are_refused(keys, rows):
    context = load_public(keys[0])
    slots = [0.0] * VALUES + [1.0]
    other = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 30, 40])
    other.global_scale = 2.0**40
    for vector, why in (
        (ts.ckks_vector(context, slots, scale=2.0**30), "another size, modulus or scale"),
        (ts.ckks_vector(other, slots), "cannot be read"),
        (-load_vector(context, rows[0][0]), "transparent"),  # a sum without a second polynomial hides nothing
    ):
        with pytest.raises(ContainerError, match=why):
            CkksAdder(keys[0]).add([rows[0], row_of(vector.serialize())])


def test_updates_of_other_lengths_or_none_are_refused(keys, rows):
    for parts in ([rows[0], np.concatenate(rows)], [np.concatenate(rows), rows[0]]):
        with pytest.raises(ContainerError, match="same number"):
            CkksAdder(keys[0]).add(parts)
    with pytest.raises(ContainerError, match="no update"):
        CkksAdder(keys[0]).add([])


@pytest.fixture(scope="module")
def roles(keys):
    return CkksAdder(keys[0]), CkksOpener(*keys, 2)


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1), head=st.booleans(), change=st.integers(1, 255))
def test_a_changed_byte_never_changes_what_is_opened(roles, rows, place, head, change):
    adder, opener = roles
    bad = rows[0].copy()
    bad[0, 4 + int(place * (99 if head else len(ciphertext_of(rows[0][0])) - 1))] ^= change
    try:
        opened = opener.open(0, adder.add([bad, rows[1]]), 5)
    except (ContainerError, TamperedError):
        return
    np.testing.assert_allclose(opened, 0.75, atol=1e-7)


def test_the_largest_values_of_64_clients_open(keys):
    values = np.where(np.arange(VALUES) % 2, LARGEST, -LARGEST).astype(np.float32)
    sealed = CkksSealer(keys[0]).seal(0, values).rows
    opened = CkksOpener(*keys, 64).open(0, CkksAdder(keys[0]).add([sealed] * 64), VALUES)
    np.testing.assert_allclose(opened, 64 * values.astype(np.float64), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nextafter(np.float32(LARGEST), np.float32(np.inf)), -3e38, np.inf, np.nan])
def test_values_that_could_blur_the_count_are_refused(keys, value):
    with pytest.raises(ProtectionError, match="scale"):
        CkksSealer(keys[0]).seal(0, np.array([0.0, value], np.float32))
