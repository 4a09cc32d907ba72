"""A member of a round is gone for good between sealing and confirming: the round is skipped, the study ends."""

import pytest

from fedpriv.errors import StudyError
from fedpriv.experiments.simulation import Trace
from fedpriv.researcher.ending import members_of_sums
from fedpriv.researcher.events import RoundFinished, RoundSkipped, StudyFinished, TicketSent

GONE = ((0.0, 1e9),)


def vanish(study, email, number, away=GONE):
    """Return a subscriber that takes a domain away as it is asked to confirm a round, and skips the round."""

    def steer(event):
        if isinstance(event, TicketSent) and (event.kind, event.round, event.domain) == ("confirm", number, email):
            study.domains[email].trace = Trace(away=away)
            assert "study skip simulation" in study.study.exclude(email)
            assert study.study.skip_round() == number

    return steer


def rounds(run):
    return [event.round for event in run.of(RoundFinished)], [event.round for event in run.of(RoundSkipped)]


def digests(study, but):
    return {study.digest(email) for email in study.domains if email != but}


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_others_finish_the_study_with_one_adapter(federation, number):
    study = federation(4)
    gone = list(study.domains)[1]  # the first makes the key
    run = study.run(vanish(study, gone, number))
    summed, skipped = rounds(run)
    assert skipped == [number]
    assert summed == [n for n in (1, 2, 3, 4) if n != number]
    assert len(digests(study, gone)) == 1
    # Whose updates are in the adapter: the one that is gone, too, from the rounds before.
    assert (gone in members_of_sums(study.study.folder, 4)) == (number > 1)
    assert {*study.domains} - {gone} <= {*members_of_sums(study.study.folder, 4)}
    assert isinstance(run.events[-1], StudyFinished)
    assert run.finished.loss_after < run.finished.loss_before


def test_who_comes_back_after_all_skips_too(federation):
    study = federation(4)
    gone = list(study.domains)[1]
    vanishes = vanish(study, gone, 2, away=((0.0, 100.0),))

    def steer(event):
        vanishes(event)
        if isinstance(event, RoundSkipped):
            study.study.readmit(gone)

    run = study.run(steer)
    assert rounds(run) == ([1, 3, 4], [2])
    assert len(digests(study, None)) == 1
    for email, domain in study.domains.items():
        entries = domain.work.context.ledger.entries()
        ended = [(e.facts["round"], e.kind) for e in entries if e.kind in ("aggregate.opened", "round.skipped")]
        assert ended == [(n, "round.skipped" if n == 2 else "aggregate.opened") for n in (1, 2, 3, 4)], email
        sealed = [e.facts for e in entries if e.kind == "update.sealed"]
        # The confirm ticket lay before the skip ticket: nothing of round 2 is carried on.
        assert [(facts["round"], facts.get("carried")) for facts in sealed] == [(n, None) for n in (1, 2, 3, 4)]


def test_a_buffer_that_can_never_be_summed_is_skipped_too(federation):
    study = federation(4, schedule={"mode": "buffered", "buffer": 2})
    seen = []

    def steer(event):
        if isinstance(event, TicketSent) and (event.kind, event.round) == ("confirm", 2) and not seen:
            seen.append(event.domain)
            study.domains[event.domain].trace = Trace(away=GONE)
            study.study.exclude(event.domain)
            study.study.skip_round()

    run = study.run(steer)
    summed, skipped = rounds(run)
    assert (summed, skipped) == ([1, 3, 4], [2])
    assert len(digests(study, seen[0])) == 1


def test_only_a_round_at_work_without_a_sum_can_be_skipped(federation):
    study = federation()
    with pytest.raises(StudyError, match="No round is at work"):
        study.study.skip_round()
    study.run()
    with pytest.raises(StudyError, match="The study is finished"):
        study.study.skip_round()


def test_a_round_that_can_go_on_without_the_excluded_is_not_skipped(federation):
    study = federation(4)
    refused = []

    def steer(event):
        if isinstance(event, TicketSent) and (event.kind, event.round) == ("train", 2) and not refused:
            study.study.exclude(list(study.domains)[1])
            with pytest.raises(StudyError, match="Round 2 does not need anybody who was excluded") as caught:
                study.study.skip_round()
            refused.append(caught)

    assert rounds(study.run(steer)) == ([1, 2, 3, 4], [])
    assert refused


def test_a_skip_that_comes_too_late_changes_nothing(federation):
    study = federation()

    def steer(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            study.study.steering.change(skipped_round=2)

    run = study.run(steer)
    assert rounds(run) == ([1, 2, 3, 4], [])
