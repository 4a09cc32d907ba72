from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ProtectionError
from fedpriv.protection.bfv import PRIME, largest_plain_bits
from fedpriv.protection.codec import plan_codec


@pytest.mark.parametrize("clients", range(2, 65))
@pytest.mark.parametrize("bits", [8, 10, 13, 16])
def test_plans_are_exact(clients, bits):
    codec = plan_codec(bits=bits, clip=0.1, clients=clients)
    largest = sum(2 * codec.half * clients * codec.radix**index for index in range(codec.digits))
    assert largest < 2**codec.plain_bits <= 2 ** largest_plain_bits(clients)
    assert 2 * (21.5 * clients + 1) < PRIME / 2**codec.plain_bits
    assert codec.digits >= 2
    one_more = codec.radix ** (codec.digits + 1)
    assert one_more > 2 ** largest_plain_bits(clients)


def test_impossible_plans_are_refused():
    for wrong in ({"clients": 1}, {"clients": 65}, {"bits": 1}, {"bits": 40}, {"clip": 0.0}, {"clip": float("inf")}):
        with pytest.raises(ProtectionError):
            plan_codec(**({"clients": 4, "bits": 8, "clip": 1.0} | wrong))


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(8, 16),
    clients=st.integers(2, 64),
    number=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_of_packed_digits_unpack_to_sums(bits, clients, number, seed):
    codec = plan_codec(bits=bits, clip=0.3, clients=clients)
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 2 * codec.half + 1, (clients, number), dtype=np.uint64)
    digits[:, rng.integers(0, number)] = 2 * codec.half
    packed = np.array([codec.pack(row) for row in digits])
    oracle = [
        sum(int(value) * codec.radix**place for place, value in enumerate(row[start : start + codec.digits]))
        for row in digits
        for start in range(0, number, codec.digits)
    ]
    assert packed.reshape(-1).tolist() == oracle
    total = [sum(int(value) for value in column) for column in packed.T]
    assert max(total) < 2**codec.plain_bits
    sums = codec.unpack(np.array(total, np.uint64), number)
    expected = digits.astype(object).sum(axis=0)
    assert sums.tolist() == expected.tolist()
    values = codec.dequantise(sums, clients)
    oracle_values = [float(value - codec.half * clients) * codec.step for value in expected]
    np.testing.assert_allclose(values, oracle_values, rtol=1e-12, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(8, 16),
    clip=st.floats(1e-6, 10),
    values=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=50),
)
def test_what_rounding_leaves_out_is_in_the_residual(bits, clip, values):
    codec = plan_codec(bits=bits, clip=clip, clients=3)
    array = np.array(values, np.float32)
    digits, residual, clipped = codec.quantise(array, np.random.default_rng(0))
    assert digits.max() <= 2 * codec.half
    assert residual.dtype == np.float32
    stands_for = (digits.astype(np.float64) - codec.half) * codec.step
    np.testing.assert_allclose(stands_for + residual, array, rtol=1e-6, atol=1e-6 * clip)
    inside = np.abs(array.astype(np.float64)) <= clip
    assert np.all(np.abs(residual[inside]) <= codec.step * (1 + 1e-6))
    assert clipped == np.count_nonzero(~inside)
    assert np.allclose(stands_for[array > clip], clip)
    assert np.allclose(stands_for[array < -clip], -clip)


def test_rounding_is_unbiased():
    codec = plan_codec(bits=8, clip=1.0, clients=3)
    value = np.float32(0.123456)
    digits, _, _ = codec.quantise(np.full(400_000, value), np.random.default_rng(1))
    levels = np.unique(digits)
    assert levels.size == 2
    mean = codec.dequantise(digits, 1).mean()
    assert abs(mean - value) < 4 * codec.step / 2 / np.sqrt(400_000)


def test_zero_and_the_clip_are_exact():
    codec = plan_codec(bits=12, clip=0.05, clients=5)
    values = np.array([0.0, 1.0, -1.0], np.float32)
    for seed in range(50):
        digits, _, _ = codec.quantise(values, np.random.default_rng(seed))
        assert digits.tolist() == [codec.half, 2 * codec.half, 0]


def test_impossible_sums_are_refused():
    codec = plan_codec(bits=16, clip=0.05, clients=3)
    with pytest.raises(ProtectionError):
        codec.unpack(np.array([codec.radix**codec.digits], np.uint64), 1)
    with pytest.raises(ProtectionError):
        codec.dequantise(np.array([2 * codec.half * 2 + 1], np.uint64), 2)
