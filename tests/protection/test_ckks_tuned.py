from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tenseal import sealapi

from fedpriv.errors import ContainerError, ProtectionError, TamperedError, UntrustedError
from fedpriv.protection.bfv import BfvContext
from fedpriv.protection.bitplanes import pack_words, unpack_words
from fedpriv.protection.ckks_tuned import (
    DEGREE,
    MAX_CLIENTS,
    PRIME,
    PRIME_BITS,
    SCALE,
    SEED_BYTES,
    VALUES,
    CkksTunedAdder,
    CkksTunedOpener,
    CkksTunedSealer,
    CkksTunedShape,
    make_ckks_tuned_key,
    seal_stream_bytes,
)
from fedpriv.protection.packing import PRIMES
from fedpriv.protection.seal_streams import stream_body, with_head


@pytest.fixture(scope="module")
def secret():
    return make_ckks_tuned_key()


@pytest.fixture(scope="module")
def rows(secret):
    sealer = CkksTunedSealer(secret)
    return [sealer.seal(0, np.full(2 * VALUES, 0.25 * sign, np.float32)).rows for sign in (1, 2)]


@pytest.mark.parametrize("number", [1, VALUES, VALUES + 1])
def test_sums_at_block_edges(secret, number):
    values = np.linspace(-1, 1, number, dtype=np.float32)
    sealer = CkksTunedSealer(secret)
    total = CkksTunedAdder().add([sealer.seal(0, values).rows for _ in range(3)])
    assert total.shape == (-(-number // VALUES), CkksTunedShape().sum_row_bytes(3))
    np.testing.assert_allclose(CkksTunedOpener(secret, 3).open(0, total, number), 3 * values, atol=5e-3)


def test_the_largest_sum_does_not_wrap(secret):
    values = np.ones(VALUES, np.float32)
    sealer, adder = CkksTunedSealer(secret), CkksTunedAdder()
    total = adder.add([sealer.seal(0, values).rows for _ in range(64)])
    np.testing.assert_allclose(CkksTunedOpener(secret, 64).open(0, total, VALUES), 64, atol=2e-2)


def test_larger_values_are_cut_and_kept(secret):
    sealed = CkksTunedSealer(secret).seal(0, np.array([1.5, -3, 0.5], np.float32))
    np.testing.assert_array_equal(sealed.residual, np.array([0.5, -2, 0], np.float32))
    assert sealed.clipped == 2


def test_a_row_is_smaller_than_what_seal_writes_and_never_repeats(secret, rows):
    assert rows[0].shape == (2, CkksTunedShape().row_bytes) == (2, 64 + 512 * 30)
    assert CkksTunedShape().row_bytes < seal_stream_bytes(secret)
    seeds = {row[:SEED_BYTES].tobytes() for part in rows for row in part}
    assert len(seeds) == 4


@pytest.mark.parametrize("clients", [1, 3])
def test_another_number_of_updates_is_found(secret, rows, clients):
    total = CkksTunedAdder().add(rows)
    CkksTunedOpener(secret, 2).open(0, total, 5)
    with pytest.raises(ContainerError, match="wrong size"):
        CkksTunedOpener(secret, clients).open(0, total, 5)


def test_an_update_left_out_or_another_key_is_found(secret, rows):
    total = CkksTunedAdder().add(rows)
    left_out = total.copy()
    left_out[:, 2 * SEED_BYTES :] = rows[0][:, SEED_BYTES:]
    with pytest.raises(TamperedError, match="manifest"):
        CkksTunedOpener(secret, 2).open(0, left_out, 5)
    with pytest.raises(TamperedError, match="manifest"):
        CkksTunedOpener(make_ckks_tuned_key(), 2).open(0, total, 5)


def test_damaged_secrets_are_refused(secret):
    for wrong in (b"", b"x" * 100, secret[:1000]):
        with pytest.raises(UntrustedError, match="cannot be read"):
            CkksTunedSealer(wrong)


def test_residues_out_of_range_and_repeated_seeds_are_refused(secret, rows):
    words = unpack_words(rows[0][:, SEED_BYTES:], PRIME_BITS)
    words[1, 9] = PRIME
    beyond = np.hstack([rows[0][:, :SEED_BYTES], pack_words(words, PRIME_BITS)])
    with pytest.raises(ContainerError, match="out of range"):
        CkksTunedAdder().add([rows[1], beyond])
    total = CkksTunedAdder().add(rows)
    total[1, :SEED_BYTES] = total[1, SEED_BYTES : 2 * SEED_BYTES]
    with pytest.raises(ContainerError, match="used twice"):
        CkksTunedOpener(secret, 2).open(0, total, 5)


@pytest.mark.parametrize("change", [lambda r: r[:, 1:], lambda r: r[0], lambda r: np.hstack([r, r])])
def test_rows_of_a_wrong_size_are_refused(rows, change):
    with pytest.raises(ContainerError, match="wrong size"):
        CkksTunedAdder().add([change(rows[0])])
    with pytest.raises(ContainerError, match="no update"):
        CkksTunedAdder().add([])


SLOT_NOISE = 3.5e-5
"""Standard deviation of one encryption's noise in a slot, in units of the scale; measured. By theory 3.24 sqrt(2048) /
2^22, the centred binomial's sqrt(10.5) over 4096 coefficients, half of whose energy is in the real part."""


def residues(rows: np.ndarray, clients: int = 1) -> np.ndarray:
    return unpack_words(rows[:, clients * SEED_BYTES :], PRIME_BITS)


def half(secret: bytes, number: int = 10) -> list[np.ndarray]:
    """Return two updates whose sum is 0.5 everywhere."""
    sealer = CkksTunedSealer(secret)
    return [sealer.seal(0, np.full(number, 0.25, np.float32)).rows for _ in range(2)]


@pytest.mark.parametrize("clients", [2, 5])
@pytest.mark.parametrize("number", [VALUES, 4 * VALUES + 1])
def test_sums_open_within_the_noise(secret, clients, number):
    updates = np.random.default_rng(number).uniform(-1, 1, (clients, number)).astype(np.float32)
    sealer = CkksTunedSealer(secret)
    total = CkksTunedAdder().add(sealer.seal(0, update).rows for update in updates)
    opened = CkksTunedOpener(secret, clients).open(0, total, number)
    assert (opened.dtype, opened.shape) == (np.float64, (number,))
    error = opened - updates.astype(np.float64).sum(axis=0)
    assert float(np.abs(error).max()) < 8 * SLOT_NOISE * clients**0.5
    assert 0.8 < float(np.sqrt((error**2).mean())) / (SLOT_NOISE * clients**0.5) < 1.2


def test_sizes(secret):
    shape = CkksTunedShape()
    assert (shape.width, shape.row_bytes) == (2047, 15_424)
    assert [shape.sum_row_bytes(clients) for clients in (2, 64)] == [15_488, 19_456]
    assert 7.53 < shape.row_bytes / shape.width < 7.54
    assert 8.4 < seal_stream_bytes(secret) / shape.width < 8.6


def test_a_sum_is_the_residues_modulo_the_prime_and_all_seeds(secret):
    sealer, rng = CkksTunedSealer(secret), np.random.default_rng(1)
    parts = [sealer.seal(0, rng.uniform(-1, 1, 2 * VALUES).astype(np.float32)).rows for _ in range(5)]
    before = [part.copy() for part in parts]
    total = CkksTunedAdder().add(iter(parts))
    np.testing.assert_array_equal(parts, before)
    expected = np.sum([residues(part).astype(object) for part in parts], axis=0) % PRIME
    np.testing.assert_array_equal(residues(total, 5), expected.astype(np.uint64))
    for block in range(2):
        seeds = b"".join(part[block, :SEED_BYTES].tobytes() for part in parts)
        assert total[block, : 5 * SEED_BYTES].tobytes() == seeds


@settings(max_examples=20, deadline=None)
@given(
    values=arrays(np.float32, st.integers(1, VALUES + 2), elements=st.floats(-2, 2, width=32)),
    clients=st.integers(2, 4),
)
def test_what_is_cut_off_is_left_out(secret, values, clients):
    sealer = CkksTunedSealer(secret)
    parts = [sealer.seal(0, values) for _ in range(clients)]
    cut = np.clip(values, -1, 1)
    for part in parts:
        assert part.residual is not None
        assert part.residual.dtype == np.float32
        np.testing.assert_array_equal(part.residual, values - cut)
        assert part.clipped == int((np.abs(values) > 1).sum())
    total = CkksTunedAdder().add(part.rows for part in parts)
    opened = CkksTunedOpener(secret, clients).open(0, total, values.size)
    np.testing.assert_allclose(opened, clients * cut.astype(np.float64), atol=8 * SLOT_NOISE * clients**0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(secret, value):
    with pytest.raises(ProtectionError, match="not finite"):
        CkksTunedSealer(secret).seal(0, np.array([0.0, value], np.float32))


def test_the_most_clients_are_those_whose_sums_cannot_wrap(secret):
    worst = Fraction(SCALE) + Fraction(1, 2) + 21  # the encoding, its rounding, a centred binomial of 42 bits
    assert 64 <= MAX_CLIENTS < Fraction(PRIME, 2) / worst <= MAX_CLIENTS + 1
    for clients in (0, -1, MAX_CLIENTS + 1):
        with pytest.raises(ProtectionError, match="modulus"):
            CkksTunedOpener(secret, clients)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_no_values_have_a_coefficient_beyond_the_scale(seed):
    """The encoding again, by its definition: the polynomial that takes the slots at powers of 3 of a root of unity."""
    slots = np.ones(VALUES + 1) if seed is None else np.random.default_rng(seed).choice([-1.0, 1.0], VALUES + 1)
    powers = np.array([pow(3, i, 2 * DEGREE) for i in range(VALUES + 1)])
    places = (*range(60), DEGREE // 2, DEGREE - 1)
    coefficients = [2 * float(slots @ np.cos(np.pi * (powers * j % (2 * DEGREE)) / DEGREE)) / DEGREE for j in places]
    assert np.abs(coefficients).max() <= 1 + 1e-12
    assert (coefficients[0] == 1) == (seed is None)


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_extreme_values_of_the_most_clients_do_not_wrap(secret, sign):
    sealer = CkksTunedSealer(secret)
    parts = (sealer.seal(0, np.full(VALUES, 5.0 * sign, np.float32)).rows for _ in range(MAX_CLIENTS))
    opened = CkksTunedOpener(secret, MAX_CLIENTS).open(0, CkksTunedAdder().add(parts), VALUES)
    np.testing.assert_allclose(opened, sign * MAX_CLIENTS, atol=8 * SLOT_NOISE * MAX_CLIENTS**0.5)


@pytest.mark.parametrize("value", [PRIME, 2**PRIME_BITS - 1])
@pytest.mark.parametrize("position", [0, DEGREE - 1])
def test_residues_out_of_range_are_refused_in_sums_too(secret, value, position):
    total = CkksTunedAdder().add(half(secret))
    words = residues(total, 2)
    words[0, position] = value
    with pytest.raises(ContainerError, match="out of range"):
        CkksTunedOpener(secret, 2).open(0, np.hstack([total[:, : 2 * SEED_BYTES], pack_words(words, PRIME_BITS)]), 10)


def test_a_seed_that_two_updates_share_is_not_added(secret):
    one, two = half(secret)
    with pytest.raises(ContainerError, match="used twice"):
        CkksTunedAdder().add([one, two, one])


def test_updates_of_other_lengths_are_refused(secret):
    one, two = half(secret, 10)[0], half(secret, VALUES + 1)[0]
    for parts in ([one, two], [two, one]):  # one block is never repeated over two
        with pytest.raises(ContainerError, match="same number"):
            CkksTunedAdder().add(parts)


@pytest.mark.parametrize("count", [0.0, 0.98, 1.0, 1.02, 2.0, -1.0])
def test_a_wrong_count_is_tampering(secret, count):
    sealer, plain = CkksTunedSealer(secret), sealapi.Plaintext()
    sealer._encoder.encode([0.25] * 10 + [0.0] * (VALUES - 10) + [count], SCALE, plain)
    seed, words = sealer._form.split(sealer._context.bridge.saved(sealer._encryptor.encrypt_symmetric(plain)))
    crafted = np.concatenate([seed[np.newaxis], pack_words(words[np.newaxis], PRIME_BITS)], axis=1)
    total = CkksTunedAdder().add([half(secret)[0], crafted])
    if count == 1:
        np.testing.assert_allclose(CkksTunedOpener(secret, 2).open(0, total, 10), 0.5, atol=1e-3)
    else:
        with pytest.raises(TamperedError, match="manifest"):
            CkksTunedOpener(secret, 2).open(0, total, 10)


def test_residues_of_one_block_with_the_seeds_of_another_are_tampering(secret):
    total = CkksTunedAdder().add(half(secret, 3 * VALUES))
    opener = CkksTunedOpener(secret, 2)
    np.testing.assert_allclose(opener.open(0, total, 3 * VALUES), 0.5, atol=1e-3)
    total[1, 2 * SEED_BYTES :] = total[0, 2 * SEED_BYTES :]
    with pytest.raises(TamperedError, match="manifest"):
        opener.open(0, total, 3 * VALUES)


@pytest.fixture(scope="module")
def opener(secret):
    return CkksTunedOpener(secret, 2)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, CkksTunedShape().sum_row_bytes(2) - 1), change=st.integers(1, 255))
def test_every_changed_byte_is_found(opener, rows, position, change):
    total = CkksTunedAdder().add(rows)
    total[0, position] ^= change
    with pytest.raises((ContainerError, TamperedError)):
        opener.open(0, total, 2 * VALUES)


def test_secrets_of_another_scheme_or_size_are_refused(secret):
    context = BfvContext(40, PRIMES["tc192"])
    foreign = context.bridge.saved(sealapi.KeyGenerator(context.seal).secret_key())
    for wrong in (secret[:-1], bytes(len(secret)), b"x" * 2**18, foreign):
        with pytest.raises(UntrustedError, match="cannot be read"):
            CkksTunedSealer(wrong)
        with pytest.raises(UntrustedError, match="cannot be read"):
            CkksTunedOpener(wrong, 2)


def test_foreign_streams_are_refused(secret):
    sealer = CkksTunedSealer(secret)
    stream = sealer.stream(np.zeros(VALUES, np.float32))
    body = stream_body(stream)
    seed, words = sealer._form.split(stream)
    assert sealer._form.stream(words, seed) == with_head(body)
    for position in (0, 32, 33, 66, 90, len(body) - SEED_BYTES - 1, len(body) - SEED_BYTES - 17):
        changed = bytearray(body)
        changed[position] ^= 0x41
        with pytest.raises(ProtectionError, match="another form"):
            sealer._form.split(with_head(bytes(changed)))
    for wrong in (b"", stream[:-1], stream + b"x", with_head(body[:-1]), with_head(body + b"x")):
        with pytest.raises(ProtectionError, match="another form"):
            sealer._form.split(wrong)
