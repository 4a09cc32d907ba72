from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedpriv.training.task_metrics import LEAST_OF_A_CLASS, answer_metrics, auroc, macro_f1, micro_f1

CASES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=8, max_size=40)


def arrays(case):
    return np.array([score for score, _ in case], float), np.array([yes for _, yes in case])


@given(CASES)
def test_the_area_is_that_of_mann_and_whitney(case):
    scores, yes = arrays(case)
    area = auroc(scores, yes)
    if min(yes.sum(), (~yes).sum()) < LEAST_OF_A_CLASS:
        assert area is None
        return
    u = stats.mannwhitneyu(scores[yes], scores[~yes]).statistic
    assert math.isclose(area.value, u / (yes.sum() * (~yes).sum()), abs_tol=1e-12)


@given(CASES)
@settings(max_examples=50)
def test_the_error_is_that_of_delong_written_out(case):
    """DeLong's placements by comparing every pair, as in the paper."""
    scores, yes = arrays(case)
    area = auroc(scores, yes)
    if area is None:
        return
    pairs = np.sign(scores[yes][:, None] - scores[~yes][None, :]) / 2 + 0.5
    variance = pairs.mean(1).var(ddof=1) / pairs.shape[0] + pairs.mean(0).var(ddof=1) / pairs.shape[1]
    assert math.isclose(area.error, math.sqrt(variance), abs_tol=1e-12)


def test_the_error_is_what_repeating_shows():
    draw = np.random.default_rng(0)
    yes = np.arange(120) < 40
    areas = [auroc(draw.normal(size=120) + yes, yes) for _ in range(400)]
    spread = np.std([area.value for area in areas])
    assert 0.85 < np.mean([area.error for area in areas]) / spread < 1.15


def test_f1_of_a_worked_example():
    yes = np.array([[True, False, False], [True, True, False], [False, True, False]])
    predicted = np.array([[True, False, False], [False, True, True], [False, True, False]])
    assert micro_f1(predicted, yes) == pytest.approx(2 * 3 / (2 * 3 + 2))
    assert macro_f1(predicted, yes) == pytest.approx((2 / 3 + 1.0 + 0.0) / 3)
    nobody = np.zeros((3, 2), bool)
    assert micro_f1(nobody, nobody) == macro_f1(nobody, nobody) == 1.0


def test_a_class_that_is_too_small_has_no_area():
    yes = np.array([[True]] * 2 + [[False]] * 20)
    found = answer_metrics(np.linspace(0, 1, 22)[:, None], yes)
    assert set(found) == {"heldout_micro_f1", "heldout_macro_f1"}
    nobody = np.zeros((5, 1), bool)
    assert answer_metrics(np.full((5, 1), 0.2), nobody) == {}, "nothing to find is not found perfectly"
    more = answer_metrics(np.linspace(0, 1, 22)[:, None], np.array([[True]] * 3 + [[False]] * 19))
    assert more["heldout_auroc"] == 0.0
    assert more["heldout_auroc_se"] == 0.0
