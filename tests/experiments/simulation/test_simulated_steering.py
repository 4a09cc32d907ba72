"""A study that is paused, stepped and stopped from outside goes on where it was, to the same adapter."""

import pytest

from fedpriv.errors import StoppedError
from fedpriv.researcher.events import Paused, RoundFinished, TicketSent, Unpaused, Weighed


def finished(run):
    return [event.round for event in run.of(RoundFinished)]


def test_a_paused_study_waits_and_goes_on(federation):
    study = federation()
    paused = []

    def steer(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            assert study.study.pause() == 2
        if isinstance(event, Paused):
            paused.append(event.round)
            if len(paused) == 1:
                assert study.study.step() == 3
            else:
                study.study.unpause()

    run = study.run(steer)
    assert finished(run) == [1, 2, 3, 4]
    assert paused == [3, 4]
    assert [type(event) for event in run.events if isinstance(event, Paused | Unpaused)] == [Paused, Unpaused] * 2


def test_a_study_stopped_in_the_middle_of_a_round_trains_nothing_twice_and_ends_the_same(federation):
    whole, study = federation(), federation()
    whole.run()
    sent = []

    def steer(event):
        sent.append(event)
        if isinstance(event, TicketSent) and (event.kind, event.round) == ("train", 2):
            study.study.stop()

    with pytest.raises(StoppedError, match="asked to stop"):
        study.run(steer)
    study.study.unpause()
    study.run()
    assert not any(isinstance(event, RoundFinished) and event.round == 2 for event in sent)
    for domain in study.domains.values():
        trained = [e.facts["round"] for e in domain.work.context.ledger.entries() if e.kind == "round.trained"]
        assert trained == [1, 2, 3, 4]
    assert {study.digest(e) for e in study.domains} == {whole.digest(e) for e in whole.domains}


def test_alpha_changes_between_rounds(federation):
    study = federation(aggregation={"weights": "paper", "alpha": 0.0})

    def steer(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            study.study.steering.change(alpha=1.0)

    run = study.run(steer)
    assert [event.alpha for event in run.of(Weighed)] == [0.0, 0.0, 1.0, 1.0]
