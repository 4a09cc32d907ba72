import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedpriv.training import noise


def test_gaussian_noise_is_standard_normal():
    drawn = noise.gaussian(200_000)
    assert drawn.dtype == np.float64
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert abs(float(np.corrcoef(drawn[:-1], drawn[1:])[0, 1])) < 0.02
    half = len(drawn) // 2  # the two of a pair have radius and angle in common, and yet are independent
    assert abs(float(np.corrcoef(drawn[:half], drawn[half:])[0, 1])) < 0.02
    assert abs(float(np.corrcoef(drawn[:half] ** 2, drawn[half:] ** 2)[0, 1])) < 0.02


def test_uniform_numbers_fill_the_half_open_unit_interval():
    drawn = noise.uniform(100_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-6
    assert np.all(drawn * 2.0**53 == np.floor(drawn * 2.0**53))


def test_numbers_are_new_each_time_whatever_seeds_are_set():
    np.random.seed(0)
    first = noise.gaussian(100)
    np.random.seed(0)
    assert not np.any(first == noise.gaussian(100))


def test_the_key_stream_is_chacha20(monkeypatch):
    """The block of RFC 8439, 2.3.2, with block counter 1: the second block of a stream that begins at 0."""
    key, nonce = bytes(range(32)), bytes.fromhex("000000090000004a00000000")
    monkeypatch.setattr(noise.os, "urandom", lambda count: key if count == 32 else nonce)
    block = noise._words(16)[8:].tobytes()
    assert block.hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_as_many_numbers_as_asked_for(count):
    assert len(noise.gaussian(count)) == len(noise.uniform(count)) == count


def test_the_farthest_uniform_numbers_give_finite_noise(monkeypatch):
    for word in (0, 2**64 - 1):
        monkeypatch.setattr(noise, "_words", lambda count, word=word: np.full(count, word, np.uint64))
        assert np.isfinite(noise.gaussian(4)).all()
        assert np.abs(noise.gaussian(4)).max() < 8.6


@given(st.integers(0, 50), st.floats(0, 1))
def test_poisson_sampling_draws_each_at_most_once(count, probability):
    drawn = noise.sampled(count, probability)
    assert list(drawn) == sorted(set(drawn))
    assert all(0 <= index < count for index in drawn)


def test_poisson_sampling_draws_with_the_probability_asked_for():
    assert len(noise.sampled(100_000, 0.3)) == pytest.approx(30_000, abs=800)
    assert len(noise.sampled(1000, 1.0)) == 1000
    assert len(noise.sampled(1000, 0.0)) == 0
    sizes = {len(noise.sampled(20, 0.5)) for _ in range(200)}
    assert len(sizes) > 5  # the number is not fixed


@given(st.integers(0, 20), st.integers(1, 20))
def test_chosen_are_as_many_as_there_are_or_the_most(count, most):
    chosen = noise.chosen(count, most)
    assert len(chosen) == min(count, most)
    assert list(chosen) == sorted(set(chosen))


def test_every_one_is_chosen_alike():
    counts = np.bincount(np.concatenate([noise.chosen(5, 2) for _ in range(4000)]), minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-6
