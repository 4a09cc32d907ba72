"""Bootstrap intervals hold what is true as often as they say."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage.above_chance import AboveChance
from fedpriv.leakage.intervals import bootstrap, sign_flip


def mean(values):
    return float(values.mean())


def difference(first, second):
    return float(first.mean() - second.mean())


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(0, 99))
def test_the_interval_lies_within_the_samples_and_repeats(values, seed):
    sample = np.array(values)
    found = bootstrap([sample], mean, seed=seed, resamples=50)
    assert sample.min() - 1e-12 <= found.low <= found.high <= sample.max() + 1e-12
    assert found == bootstrap([sample], mean, seed=seed, resamples=50)


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    samples = [(rng.random(40) < 0.4).astype(float) for _ in range(100)]
    intervals = [bootstrap([sample], mean, seed=seed, resamples=400) for seed, sample in enumerate(samples)]
    assert 88 <= sum(found.low <= 0.4 <= found.high for found in intervals) <= 100


def test_more_trials_make_it_narrower():
    rng = np.random.default_rng(1)
    few, many = (bootstrap([rng.normal(size=size)], mean, resamples=400) for size in (20, 2000))
    assert many.high - many.low < (few.high - few.low) / 3


def test_several_samples_are_drawn_each_for_itself():
    found = bootstrap([np.ones(5), np.array([0.0, 1.0] * 10)], difference, resamples=400)
    assert found.value == 0.5
    assert found.above_zero
    assert not bootstrap([np.array([-1.0, 1.0] * 10)], mean, resamples=400).above_zero


def test_without_a_trial_there_is_no_interval():
    for samples in ([], [np.array([])], [np.ones(3), np.array([])]):
        with pytest.raises(InputError, match="at least one trial"):
            bootstrap(samples, mean)


@pytest.mark.parametrize(
    ("differences", "chance"),
    [([0.2, 0.1, 0.3, 0, 0, 0], 1 / 8), ([0.1] * 5, 1 / 32), ([0.0] * 6, 1.0), ([-0.1] * 4, 1.0), ([0.3, -0.1], 0.5)],
)
def test_how_often_luck_does_as_much(differences, chance):
    assert sign_flip(np.array(differences)) == pytest.approx(chance)


def test_luck_over_many_trials_is_drawn():
    rng = np.random.default_rng(0)
    assert sign_flip(rng.normal(1, 1, 40)) < 0.01
    luck = rng.normal(0, 1, 20)
    assert 0.4 < sign_flip(np.concatenate([luck, -luck])) < 0.6


def test_lucky_hits_on_a_few_texts_are_no_leak_and_hits_on_all_are():
    control = np.ones(6)
    judge = partial(AboveChance.judged, control=control, beyond=control, least=0.5, seed=0)
    lucky = judge(np.array([0.2, 0.1, 0.3, 0, 0, 0])).above_chance
    assert bootstrap([np.array([0.2, 0.1, 0.3, 0, 0, 0])], lambda values: float(values.mean())).above_zero
    assert (lucky.low, lucky.value) == (0.0, pytest.approx(0.1))
    assert judge(np.full(5, 0.1)).above_chance.above_zero


def test_false_alarms_are_as_rare_as_they_may_be():
    rng, control = np.random.default_rng(3), np.ones(6)
    alarms = 0
    for _ in range(80):
        found = rng.binomial(1, 0.15, 6) / 4 - rng.binomial(1, 0.15, 6) / 4
        alarms += AboveChance.judged(found, control=control, beyond=control, least=0.5, seed=0).above_chance.above_zero
    assert alarms <= 4
