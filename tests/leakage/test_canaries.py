"""Exposure is what its definition says, high where canaries were learnt by heart, and at chance where they were not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage import CanaryFormat, exposure, exposures
from fedpriv.leakage.canaries import ranked_exposures
from tests.leakage.conftest import BY_HEART, TOKENS

SCORES = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=20)
SAMPLES = 255
CHANCE = 1 / math.log(2)


@given(SCORES, SCORES)
def test_an_exposure_is_the_rank_among_other_fills(scores, others):
    for score, found in zip(scores, ranked_exposures(np.array(scores), np.array(others)), strict=True):
        rank = 1 + sum(other > score for other in others) + sum(other == score for other in others) / 2
        assert found == pytest.approx(math.log2(len(others) + 1) - math.log2(rank))


def test_by_chance_it_is_one_over_the_logarithm_of_two():
    rng = np.random.default_rng(0)
    found = np.concatenate([ranked_exposures(rng.normal(size=1), rng.normal(size=500)) for _ in range(3000)])
    assert found.mean() == pytest.approx(CHANCE, abs=0.1)


@given(st.integers(0, 99), st.integers(0, 40), st.integers(2, 3), st.integers(1, 4))
def test_fills_are_different_and_of_the_format(seed, count, symbols, length):
    canaries = CanaryFormat(text="a {} b", symbols=("x", "y", "z")[:symbols], length=length)
    count = min(count, canaries.space)
    fills = canaries.fills(count, seed)
    assert len(set(fills)) == count
    assert all(len(fill) == length and set(fill) <= set("xyz"[:symbols]) for fill in fills)
    assert fills == canaries.fills(count, seed)
    assert canaries.texts(fills) == [f"a {fill} b" for fill in fills]


@pytest.mark.parametrize(
    "wrong", [{"text": "no fill"}, {"text": "{} {}"}, {"symbols": ("a",)}, {"symbols": ("a", "a", "b")}, {"length": 0}]
)
def test_a_format_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="canary's text"):
        CanaryFormat(**wrong)


def test_more_fills_than_there_are_is_refused():
    with pytest.raises(InputError, match="only 4 fills"):
        CanaryFormat(symbols=("a", "b"), length=2).fills(5, 0)


def of(released, adapter, fills, **more):
    return exposures(
        released.folder, BY_HEART, adapter, released.canaries, fills, max_tokens=TOKENS, samples=SAMPLES, **more
    )


@pytest.fixture(scope="module")
def inserted(released):
    return of(released, released.adapter, released.inserted)


@pytest.fixture(scope="module")
def never(released):
    return of(released, released.adapter, released.never)


MOST = math.log2(SAMPLES + 1)


def test_positive_control_canaries_learnt_by_heart_are_exposed(inserted, never):
    found = exposure(inserted, never, control=inserted, most=MOST)
    assert found.measured
    assert found.inserted.value > 0.9 * MOST
    assert found.above_chance.low > 3
    assert found.canaries == len(inserted)
    assert "bits of 8" in str(found)


def test_negative_control_canaries_that_were_never_inserted_are_not(never, inserted):
    found = exposure(never[::2], never[1::2], control=inserted, most=MOST)
    assert found.above_chance.low < 0 < found.above_chance.high
    assert abs(never.mean() - CHANCE) < 1.5  # standard error 0.46


def test_negative_control_an_untrained_adapter_exposes_none(released, inserted):
    """It changes no loss, so all fills rank alike, in the middle."""
    np.testing.assert_allclose(
        of(released, released.start, released.inserted), MOST - math.log2(1 + SAMPLES / 2), atol=1e-9
    )


def test_with_a_control_that_fails_nothing_is_measured(inserted, never):
    found = exposure(inserted, never, control=never, most=MOST)
    assert found.above_chance is None
    assert str(found) == "not measured"
    assert not exposure(inserted[:4], never, control=inserted, most=MOST).measured


def test_a_canary_that_training_would_cut_is_refused(released):
    with pytest.raises(InputError, match="does not fit"):
        exposures(released.folder, BY_HEART, released.adapter, released.canaries, released.never, max_tokens=8)


def test_a_small_space_is_ranked_whole(released):
    canaries = CanaryFormat(text="{}", symbols=("0", "1"), length=3)
    found = exposures(released.folder, BY_HEART, released.adapter, canaries, ["000", "101"], max_tokens=TOKENS)
    assert (found <= math.log2(7)).all()
    with pytest.raises(InputError, match="other fills"):
        exposures(released.folder, BY_HEART, released.adapter, canaries, canaries.fills(8, 0), max_tokens=TOKENS)
