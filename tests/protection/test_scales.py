from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.protection.scales import deviations, energy, first_scales, next_scale, scales_digest


def test_the_first_scales_are_the_clip_for_every_tensor():
    assert first_scales(0.02, {"a": 1, "b": 2}) == (0.02, 0.02)


def test_the_digest_tells_scales_that_differ_in_the_last_bit():
    scale = 0.1
    assert scales_digest((scale, 1.0)) == scales_digest((0.1, 1.0))
    assert scales_digest((scale,)) != scales_digest((math.nextafter(scale, 1),))
    assert scales_digest((1.0, 2.0)) != scales_digest((2.0, 1.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-256, 256), min_size=1, max_size=300))
def test_the_energy_is_the_exact_sum_of_squares_in_fixed_point(values):
    expected = sum(int(np.rint(value * 65536)) ** 2 for value in values)
    assert energy(np.array(values)) == expected


def test_the_energy_of_the_largest_sums_does_not_wrap_and_adds_in_any_pieces():
    values = np.full(2**15 + 3, 256.0)
    assert energy(values) == values.size * 2**48
    assert energy(values[:1000]) + energy(values[1000:]) == energy(values)
    assert energy(np.empty(0)) == 0


def quantisation_error(clip: float, bits: int) -> float:
    """The mean squared error for a standard normal value: what is cut off, plus stochastic rounding of the rest.

    Rounding a value at a fraction f between two levels of a step s has the variance s^2 f (1 - f).
    """
    points = np.linspace(-8, 8, 64_001)
    density = np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    step = clip / (2 ** (bits - 1) - 1)
    inside = np.clip(points, -clip, clip)
    fraction = inside / step - np.floor(inside / step)
    error = (points - inside) ** 2 + step**2 * fraction * (1 - fraction)
    return float(np.trapezoid(error * density, points))


def best_clip(bits: int) -> float:
    clips = np.arange(1.5, 7, 0.05)
    return float(clips[int(np.argmin([quantisation_error(clip, bits) for clip in clips]))])


@pytest.mark.parametrize(("bits", "near"), [(4, 2.3), (8, 3.8), (10, 4.3)])
def test_the_clip_is_near_the_one_of_least_error(bits, near):
    best = best_clip(bits)
    assert abs(best - near) < 0.15
    assert abs(deviations(bits) - best) < 0.2
    assert quantisation_error(deviations(bits), bits) < 1.05 * quantisation_error(best, bits)


def test_above_ten_bits_the_clip_lies_higher_than_the_best():
    assert deviations(16) > best_clip(16)


@pytest.mark.parametrize("clients", [2, 4, 16])
@pytest.mark.parametrize("alike", [True, False])
def test_the_next_scale_covers_an_update_of_the_same_size(clients, alike):
    rng = np.random.default_rng(clients)
    scale, number, bits = 0.01, 50_000, 10
    one = rng.normal(0, 0.002, number)
    updates = [one if alike else rng.normal(0, 0.002, number) for _ in range(clients)]
    total = sum(updates) / clients / scale
    following = next_scale(scale, energy=energy(total), size=number, total_weight=1.0, clients=clients, bits=bits)
    expected = np.sqrt(np.mean((sum(updates) / clients) ** 2)) * clients**0.25 * deviations(bits)
    assert following == pytest.approx(expected, rel=1e-3)
    assert 1 < following / 0.002 < 2 * deviations(bits)


@pytest.mark.parametrize(("total", "factor"), [(0, 0.25), (2**60, 4.0)])
def test_one_odd_round_moves_a_scale_by_a_factor_of_four_at_most(total, factor):
    found = next_scale(0.01, energy=total, size=10, total_weight=1.0, clients=4, bits=10)
    assert found == pytest.approx(0.01 * factor, rel=1e-12)


def test_a_scale_never_vanishes():
    scale = 1.0
    for _ in range(100):
        scale = next_scale(scale, energy=0, size=10, total_weight=1.0, clients=4, bits=10)
    assert scale == 1e-9
