"""Membership on a released adapter is found where notes were learnt by heart, and is at chance where nothing was."""

import numpy as np
import pytest

from fedpriv.leakage import calibrated_scores, loss_scores, overfitted, released_membership
from tests.leakage.conftest import BY_HEART, noise

SCORES = [loss_scores, calibrated_scores]


def told(released, adapter, score, *, members=None, others=None):
    return [
        score(released.folder, BY_HEART, adapter, released.encoded(texts))
        for texts in (members or released.members, others or released.others)
    ]


@pytest.fixture(scope="module", params=SCORES, ids=lambda score: score.__name__)
def score(request):
    return request.param


@pytest.fixture(scope="module")
def control(released, score):
    return told(released, released.adapter, score)


def test_positive_control_notes_learnt_by_heart_are_told_from_others(released, score, control):
    found = released_membership(*control, control=control)
    assert found.measured
    assert found.found.auroc.low > 0.9
    assert found.found.found.value > 0.5
    assert (found.found.members, found.found.others) == (len(released.members), len(released.others))


def test_negative_control_patients_who_were_not_in_it_are_not_found(released, score, control):
    found = released_membership(
        *told(released, released.adapter, score, members=released.others[::2], others=released.others[1::2]),
        control=control,
    )
    assert found.measured
    assert found.found.auroc.low < 0.5 < found.found.auroc.high


@pytest.mark.parametrize("kind", ["untrained", "random"])
def test_negative_control_an_adapter_that_was_trained_on_nothing_tells_nothing(released, score, control, kind):
    layout = {name: value.shape for name, value in released.start.items()}
    adapter = released.start if kind == "untrained" else {n: 100 * v for n, v in noise(layout, 3).items()}
    found = released_membership(*told(released, adapter, score), control=control)
    assert found.found.auroc.low < 0.5 < found.found.auroc.high or found.found.auroc.value == 0.5


def test_a_reference_trained_on_like_notes_takes_off_how_easy_a_note_is(released):
    """Two adapters of different patients: each is the other's reference, and finds its own members."""
    halves = released.others[:8], released.others[8:16]
    first, second = (
        overfitted(released.folder, BY_HEART, released.start, released.encoded(half), steps=25) for half in halves
    )
    scores = [
        calibrated_scores(released.folder, BY_HEART, first, released.encoded(half), references=[second])
        for half in halves
    ]
    assert scores[0].mean() > 0 > scores[1].mean()
    assert released_membership(*scores, control=scores).found.auroc.low > 0.9


def test_with_a_control_that_fails_nothing_is_measured(control):
    rng = np.random.default_rng(0)
    blind = rng.normal(size=40), rng.normal(size=40)
    found = released_membership(*control, control=blind)
    assert found.found is None
    assert str(found) == "not measured"
    assert not released_membership(control[0][:4], control[1], control=control).measured
    assert not released_membership(*control, control=(control[0][:4], control[1])).measured
