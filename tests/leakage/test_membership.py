"""Scores of membership tell members from others where there is something to tell, and are at chance where not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage import Rehearsal, View, gradient_of, membership, membership_score, sgd_update
from fedpriv.leakage.membership import auroc, found_at_few_alarms
from fedpriv.study.protection_choice import ProtectionChoice
from tests.leakage.conftest import LORA, noise, view_of

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs(members, others):
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert auroc(np.array(members), np.array(others)) == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES)
def test_the_share_found_never_costs_more_alarms_than_allowed(members, others):
    """Compared with every threshold there is."""
    best = 0.0
    for threshold in [*others, -np.inf]:
        if np.mean([other > threshold for other in others]) <= 0.01:
            best = max(best, float(np.mean([member > threshold for member in members])))
    assert found_at_few_alarms(np.array(members), np.array(others)) == best


def test_of_a_hundred_others_one_may_be_taken_for_a_member():
    others = np.arange(100.0)
    assert found_at_few_alarms(np.array([98.5]), others) == 1.0
    assert found_at_few_alarms(np.array([98.5]), others[50:].repeat(1)) == 0.0


def test_the_score_is_the_cosine_with_the_descent():
    gradient = {"a": np.array([[3.0, 4.0]], np.float32)}
    for tensors, score in (
        ({"a": [[-6.0, -8.0]]}, 1.0),
        ({"a": [[4.0, -3.0]]}, 0.0),
        ({"a": [[0.0, 0.0]]}, 0.0),
        ({}, 0),
    ):
        view = View(party="x", levels={}, tensors={name: np.array(value) for name, value in tensors.items()})
        assert membership_score(view, gradient) == pytest.approx(score)


def test_what_does_not_fit_or_is_not_finite_is_refused():
    gradient = {"a": np.ones((1, 2), np.float32)}
    with pytest.raises(InputError, match="different adapters"):
        membership_score(View(party="x", levels={}, tensors={"a": np.ones((2, 1))}), gradient)
    with pytest.raises(InputError, match="not finite"):
        membership_score(View(party="x", levels={}, tensors={"a": np.array([[np.inf, 0]])}), gradient)
    with pytest.raises(InputError, match="at least one"):
        membership([], [1.0])


def test_few_scores_without_a_difference_are_seldom_taken_for_a_leak():
    rng = np.random.default_rng(0)
    alarms = [membership(*rng.normal(size=(2, 6)).tolist(), seed=seed).auroc.low > 0.5 for seed in range(60)]
    assert np.mean(alarms) <= 0.1


def scores(attacked, views_of):
    """Scores of the notes of three updates, two batches of four each, and of as many that were in none."""
    members, others = [], []
    for seed in range(3):
        batches = [attacked.passages(4, seed=50 * seed + part, length=40) for part in range(4)]
        views = list(views_of(sgd_update(attacked.folder, LORA, attacked.adapter, batches[:2], rate=0.05)))
        for found, notes in ((members, batches[0] + batches[1]), (others, batches[2] + batches[3])):
            for note in notes:
                gradient = gradient_of(attacked.folder, LORA, attacked.adapter, [note])
                found += [membership_score(view, gradient) for view in views]
    return membership(members, others)


def test_positive_control_plain_updates_tell_who_was_in_them(attacked):
    found = scores(attacked, lambda update: [view_of(update)])
    assert found.auroc.low > 0.7
    assert (found.members, found.others) == (24, 24)


def at_chance(found):
    """Twelve views of each update: wide enough that a sound protection fails once in a million runs."""
    return abs(found.auroc.value - 0.5) < 0.15


def test_negative_control_random_updates_tell_nothing(attacked):
    assert at_chance(scores(attacked, lambda _: [view_of(noise(attacked.layout, seed)) for seed in range(12)]))


@pytest.mark.parametrize("level", ["masked", "sealed", "ckks-tuned"])
def test_a_protected_update_tells_nothing(attacked, tmp_path, level):
    cohort = Rehearsal(ProtectionChoice(level=level), attacked.layout, tmp_path, clip=0.05)
    rest = [noise(attacked.layout, 1), noise(attacked.layout, 2)]

    def protected(update):
        for _ in range(12):
            yield cohort.aggregator_view(cohort.publish([update, *rest])[0])

    assert at_chance(scores(attacked, protected))
