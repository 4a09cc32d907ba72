"""Data owners who want more domains than a plan's quorum: no round begins with too few, and none is stuck for good."""

import pytest

from fedpriv.errors import StudyError
from fedpriv.experiments.simulation import Trace
from fedpriv.researcher.events import RoundFinished, RoundStarted
from fedpriv.researcher.records import Exclusion

QUORUM = {"quorum": 2, "patience_s": 30}
LATE = [Trace(), Trace(), Trace(approves_s=500.0)]


def want(study, email, least):
    """Have a data owner approve with a minimum, as the researcher reads it and the domain keeps to it."""
    domain = study.domains[email]
    limits = domain.decision.limits.model_copy(update={"minimum_cohort": least})
    decision = domain.decision = domain.decision.model_copy(update={"limits": limits})
    domain.work.context.decision = lambda: decision


def want_in_policy(study, least):
    """Have every data owner raise the minimum in domain.yaml, of which the researcher hears nothing."""
    for domain in study.domains.values():
        context = domain.work.context
        policy = context.config.policy.model_copy(update={"minimum_cohort": least})
        context.config = context.config.model_copy(update={"policy": policy})


def sums(run):
    return {event.round: len(event.weights) for event in run.of(RoundFinished)}


@pytest.mark.parametrize("schedule", [QUORUM, {"mode": "buffered", "buffer": 2}])
def test_a_round_waits_for_as_many_as_a_data_owner_wants(federation, schedule):
    study = federation(LATE, schedule=schedule)
    want(study, next(iter(study.domains)), 3)
    assert sums(study.run()) == dict.fromkeys((1, 2, 3, 4), 3)


@pytest.mark.parametrize("schedule", [{}, QUORUM, {"mode": "buffered", "buffer": 2}])
def test_with_too_few_no_round_begins_and_it_is_said_whose_limit_it_is(federation, schedule):
    study = federation(schedule=schedule)
    first, _, third = study.domains
    want(study, first, 3)
    study.study.folder.exclude(Exclusion(email=third, reason="away"))
    with pytest.raises(StudyError, match=f"Round 1 would have 2 domains.*that of {first} wants 3") as stopped:
        study.run()
    assert "fedpriv study readmit" in str(stopped.value)
    assert "--minimum-cohort 2" in str(stopped.value)
    assert study.study.folder.round_members(1) == []
    study.study.readmit(third)
    assert min(sums(study.run()).values()) == 3


def test_a_data_owner_who_approves_for_fewer_is_heard(federation):
    study = federation()
    first, _, third = study.domains
    want(study, first, 3)
    study.study.folder.keep_decision(study.domains[first].decision)
    study.study.folder.exclude(Exclusion(email=third, reason="away"))
    want(study, first, 2)
    assert sums(study.run()) == dict.fromkeys((1, 2, 3, 4), 2)
    assert study.study.folder.decision(first).limits.minimum_cohort == 2


@pytest.mark.parametrize("weights", ["fedavg", "inverse-loss"])
def test_a_round_that_all_refused_as_too_few_goes_on_with_more(federation, weights):
    study = federation(LATE, schedule=QUORUM, aggregation={"weights": weights})
    want_in_policy(study, 3)
    *before, third = study.domains
    with pytest.raises(StudyError, match=r"of round 1 was not done by every domain .* wants 3"):
        study.run()
    study.domains[third].trace = Trace()
    for email in before:  # as after a refusal of another reason, or of an older version: the slot is taken already
        study.domains[email].folder.claim("train-0001-1" if weights == "fedavg" else "seal-0001-1", "0" * 64)
    for _ in range(3):  # the third is to be prepared first
        try:
            run = study.run()
            break
        except StudyError as error:
            assert "wants 3" in str(error)
    assert sums(run) == dict.fromkeys((1, 2, 3, 4), 3)
    assert len(run.of(RoundStarted)) == 4
