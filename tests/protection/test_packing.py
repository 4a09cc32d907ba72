from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ProtectionError, TamperedError
from fedpriv.protection.packing import PRIMES, Packing, exact, plan_packing

SECURITIES = ("tc192", "tc256", None)
securities = st.sampled_from(SECURITIES)


def noise(clients: int, ell: int) -> Fraction:
    """The left side of the condition in the notes; nothing is lost where no bit is dropped."""
    lost = Fraction(2) ** (ell - 1) if ell else Fraction(0)
    return clients * (Fraction(43, 2) + lost) + lost + 1


def is_exact(clients: int, bits: int, v: int, m: int, prime: int, ell: int) -> bool:  # noqa: PLR0917
    digits_fit = (clients * (2 * (2 ** (bits - 1) - 1)) + 1) ** v <= 2**m
    return digits_fit and noise(clients, ell) < Fraction(prime, 2 ** (m + 1))


def best_row(clients: int, bits: int, prime: int) -> Fraction:
    """Return the fewest packed bytes a value over all v, m and ell, by trying them."""
    radix = clients * (2**bits - 2) + 1
    costs = []
    for v in range(1, 61):
        least = math.ceil(math.log2(radix**v) - 1e-9)
        assert 2 ** (least - 1) < radix**v <= 2**least
        if least > 60:
            break
        for m in (least, least + 1):
            ells = [0]
            if prime:
                ells = list(itertools.takewhile(functools.partial(is_exact, clients, bits, v, m, prime), range(60)))
            limb = m - math.ceil(math.log2(clients))
            if m <= 60 and ells and limb > 0:
                width = v * (4096 - 1 - math.ceil(Fraction(61, limb)))
                sent = prime.bit_length() - ells[-1] if prime else m
                costs.append(Fraction(512 * sent, width))
    return min(costs)


@pytest.mark.parametrize("security", ["tc192", "tc256"])
def test_every_plan_keeps_the_bound_and_drops_as_many_bits_as_it_allows(security):
    prime = PRIMES[security]
    for clients, bits in itertools.product((*range(2, 66), *range(70, 257, 6), 255, 256), range(4, 17)):
        found = plan_packing(bits=bits, clients=clients, security=security)
        facts = (clients, bits, found.digits, found.plain_bits)
        assert is_exact(*facts, prime, found.dropped_bits)
        assert exact(found)
        assert not is_exact(*facts, prime, found.dropped_bits + 1)
        assert not exact(dataclasses.replace(found, dropped_bits=found.dropped_bits + 1))
        assert not exact(dataclasses.replace(found, digits=found.digits + 1))


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("clients", [2, 4, 7, 16, 64, 256])
def test_no_other_plan_is_smaller(clients, security):
    for bits in range(4, 17):
        found = plan_packing(bits=bits, clients=clients, security=security)
        assert Fraction(512 * found.sent_bits, found.width) == best_row(clients, bits, found.prime)


@pytest.mark.parametrize(
    ("clients", "bits", "v", "m", "sent"),
    [
        (4, 8, 5, 50, 53),
        (4, 10, 4, 48, 51),
        (4, 16, 2, 36, 39),
        (16, 8, 4, 48, 53),
        (16, 10, 3, 42, 47),
        (64, 8, 3, 42, 49),
        (64, 10, 3, 48, 56),
        (256, 4, 3, 36, 45),
        (256, 10, 2, 36, 45),
    ],
)
def test_plans_are_those_of_the_notes(clients, bits, v, m, sent):
    found = plan_packing(bits=bits, clients=clients, security="tc192")
    assert (found.digits, found.plain_bits, found.sent_bits) == (v, m, sent)


@pytest.mark.parametrize(("bits", "clients"), [(1, 4), (17, 4), (10, 1), (10, 257), (0, 0)])
def test_numbers_out_of_range_are_refused(bits, clients):
    for security in SECURITIES:
        with pytest.raises(ProtectionError, match="can be planned"):
            plan_packing(bits=bits, clients=clients, security=security)


def test_the_tag_has_headroom_for_all_clients():
    for clients, bits, security in itertools.product((2, 3, 5, 16, 17, 63, 64, 129, 256), range(4, 17), SECURITIES):
        found = plan_packing(bits=bits, clients=clients, security=security)
        assert clients * (2**found.limb_bits - 1) < 2**found.plain_bits
        assert found.limbs * found.limb_bits >= 61
        assert found.value_words + 1 + found.limbs == 4096
        assert found.plain_bits <= 60


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(4, 16),
    clients=st.integers(2, 256),
    security=securities,
    fill=st.floats(0, 2.2),
    seed=st.integers(0, 2**32 - 1),
    edge=st.sampled_from(["random", "highest", "zeros"]),
)
def test_words_are_the_digits_in_the_radix_by_pythons_integers(*, bits, clients, security, fill, seed, edge):
    found = plan_packing(bits=bits, clients=clients, security=security)
    highest, radix = 2**bits - 2, clients * (2**bits - 2) + 1
    assert (2 * found.half, found.radix) == (highest, radix)
    number = max(1, int(fill * found.width))
    digits = np.random.default_rng(seed).integers(0, highest + 1, number, dtype=np.uint32)
    if edge != "random":
        digits[:] = highest if edge == "highest" else 0
    words = found.pack(digits)
    assert words.shape == (-(-number // found.width), found.value_words)
    flat, listed = words.reshape(-1).tolist(), digits.tolist()
    for index in {0, 1, (number - 1) // found.digits, len(flat) - 1, seed % len(flat)}:
        mine = listed[index * found.digits : (index + 1) * found.digits]
        assert flat[index] == sum(digit * radix**place for place, digit in enumerate(mine))
    np.testing.assert_array_equal(found.unpack(words, number, 1), digits)


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(4, 16),
    clients=st.integers(2, 256),
    security=securities,
    number=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    extreme=st.booleans(),
)
def test_sums_of_words_are_sums_of_digits(*, bits, clients, security, number, seed, extreme):
    found = plan_packing(bits=bits, clients=clients, security=security)
    digits = np.random.default_rng(seed).integers(0, 2**bits - 1, (clients, number), dtype=np.uint32)
    if extreme:
        digits[:] = 2**bits - 2
    total = np.zeros((1, found.value_words), np.uint64)
    for one in digits:
        total += found.pack(one)
    assert int(total.max()) < 2**found.plain_bits
    assert found.unpack(total, number, clients).tolist() == digits.sum(axis=0, dtype=object).tolist()


def test_a_digit_too_many_or_out_of_place_is_refused():
    found = plan_packing(bits=10, clients=4, security="tc192")
    honest = found.pack(np.full(10, 2 * found.half, np.uint32))
    assert found.unpack(honest, 10, 1).tolist() == [1022] * 10
    beyond = honest.copy()
    beyond[0, 1] += np.uint64(1)
    with pytest.raises(TamperedError, match="larger"):
        found.unpack(beyond, 10, 1)
    assert found.unpack(beyond, 10, 2)[4] == 1023
    stray = honest.copy()
    stray[0, -1] = 1
    with pytest.raises(TamperedError, match="larger"):
        found.unpack(stray, 10, 1)
    huge = honest.copy()
    huge[0, 0] = found.radix**found.digits
    with pytest.raises(TamperedError, match="larger"):
        found.unpack(huge, 10, 4)


def quantise(packing: Packing, values, seed=1):
    return packing.quantise(np.asarray(values, np.float32), np.random.default_rng(seed))


@pytest.mark.parametrize("bits", [4, 6, 10, 16])
def test_rounding_has_no_bias(bits):
    packing = plan_packing(bits=bits, clients=4, security=None)
    for value in (-0.999, -0.61803, -0.01, 0.0, 1e-4, 0.333, 0.9):
        number = 200_000
        digits, _, clipped = quantise(packing, np.full(number, value))
        mean = (digits.astype(np.float64).mean() - packing.half) / packing.half
        fraction = value * packing.half % 1
        deviation = math.sqrt(fraction * (1 - fraction) / number) / packing.half
        slack = 2**-9 / packing.half  # float32 has so few bits beside 2^15
        assert abs(mean - np.float32(value)) < 5 * deviation + slack
        assert clipped == 0
        assert np.unique(digits).size <= 2 + (bits == 16)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(4, 16),
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=200),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_residual_is_what_the_digits_leave_out(bits, values, seed):
    packing = plan_packing(bits=bits, clients=4, security=None)
    digits, residual, clipped = quantise(packing, values, seed)
    assert digits.max(initial=0) <= 2 * packing.half
    for value, digit, left in zip(values, digits.tolist(), residual.tolist(), strict=True):
        sent = Fraction(digit - packing.half, packing.half)
        assert abs(Fraction(value) - sent - Fraction(left)) < Fraction(1, 2**21)
        if abs(value) <= 1:
            assert abs(Fraction(value) - sent) <= Fraction(1, packing.half) * (1 + Fraction(1, 2**8))
    assert clipped == sum(abs(np.float32(value) * np.float32(packing.half)) > packing.half for value in values)


def test_extreme_values_are_cut_and_kept_in_the_residual():
    packing = plan_packing(bits=10, clients=4, security=None)
    digits, residual, clipped = quantise(packing, [1.0, -1.0, 1.5, -7.0, 1e30, -1e30])
    assert digits.tolist() == [1022, 0, 1022, 0, 1022, 0]
    np.testing.assert_array_equal(residual, np.array([0, 0, 0.5, -6, 1e30, -1e30], np.float32))
    assert clipped == 4
