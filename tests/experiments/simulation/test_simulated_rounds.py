"""Whole studies of the real orchestrator and the real domains, with links and training in virtual time."""

import pytest

from fedpriv.errors import StudyError
from fedpriv.experiments.simulation import Trace
from fedpriv.researcher.events import (
    DomainCaughtUp,
    DomainExcluded,
    DomainJoined,
    DomainMissed,
    DomainReadmitted,
    RoundFinished,
    RoundStarted,
    TicketSent,
    Weighed,
)
from fedpriv.researcher.records import Exclusion
from tests.experiments.simulation.conftest import TRAINING


def emails(federation):
    return list(federation.domains)


def digests(federation):
    return {federation.digest(email) for email in federation.domains}


def opened(federation, email):
    return [entry.facts["round"] for entry in ledger(federation, email) if entry.kind == "aggregate.opened"]


def ledger(federation, email):
    return federation.domains[email].work.context.ledger.entries()


def members(run):
    return {event.round: sorted(event.weights) for event in run.of(RoundFinished)}


def test_synchronous_rounds_bring_all_domains_to_the_same_better_adapter(federation):
    study = federation()
    run = study.run()
    assert len(digests(study)) == 1
    assert run.finished.loss_after < 0.8 * run.finished.loss_before
    assert [event.round for event in run.of(RoundFinished)] == [1, 2, 3, 4]
    assert not study.blobs or not any(name[2].startswith("aggregate") for name in study.blobs)
    assert not list((study.study.folder.state / "rounds").glob("*/aggregate-*"))


def test_a_study_repeats_to_the_bit(federation):
    first, second = federation(), federation()
    first.run()
    second.run()
    assert digests(first) == digests(second)
    other = federation(training=TRAINING | {"seed": 1})
    other.run()
    assert digests(other) != digests(first)


def test_a_slow_domain_that_shows_progress_is_waited_for(federation):
    slow = [Trace(), Trace(), Trace(step_s=50.0)]  # 500 s a round, with a patience of 60 s
    run = federation(slow, schedule={"quorum": 2, "patience_s": 60}).run()
    assert not run.of(DomainMissed)
    assert all(len(names) == 3 for names in members(run).values())
    assert run.seconds > 4 * 500


def test_a_domain_that_goes_quiet_is_missed_and_its_update_comes_with_its_next_sum(federation):
    away = [Trace(), Trace(), Trace(step_s=3.0, away=((15.0, 200.0),))]  # it is training when its link goes
    training = TRAINING | {"rounds": 20}
    runs = {}
    for late in ("carry", "drop"):
        study = federation(away, training=training, schedule={"quorum": 2, "patience_s": 30, "late_updates": late})
        run, domain = study.run(), emails(study)[2]
        missed = run.of(DomainMissed)
        assert {event.domain for event in missed} == {domain}
        assert domain not in members(run)[missed[0].round]
        assert "no sign of life for 3" in missed[0].reason
        assert all(event.carried == (late == "carry") for event in missed)
        assert len(digests(study)) == 1
        sealed = [entry.facts for entry in ledger(study, domain) if entry.kind == "update.sealed"]
        runs[late] = [facts["carried"] for facts in sealed if "carried" in facts]
        assert domain in members(run)[20]
    assert runs["drop"] == []
    assert len(runs["carry"]) >= 1
    assert [1] in runs["carry"]


def test_a_domain_that_was_away_opens_every_sum_that_it_missed_in_order(federation):
    traces = [Trace(), Trace(), Trace(away=((30.0, 90.0),))]
    study = federation(traces, training=TRAINING | {"rounds": 12}, schedule={"quorum": 2, "patience_s": 20})
    run = study.run()
    assert run.of(DomainMissed)
    assert run.of(DomainCaughtUp)
    assert opened(study, emails(study)[2]) == list(range(1, 13))
    assert len(digests(study)) == 1
    assert len(members(run)[12]) == 3
    assert len(run.of(DomainMissed)) <= 2  # it is asked again when it is seen to move, not before


def test_a_domain_whose_data_owner_decides_late_joins_later_and_catches_up(federation):
    traces = [Trace(), Trace(), Trace(approves_s=30.0)]
    study = federation(traces, schedule={"quorum": 2})
    run = study.run()
    late = emails(study)[2]
    assert late not in members(run)[1]
    assert late in members(run)[4]
    assert [event.domain for event in run.of(DomainJoined)][-1] == late
    assert opened(study, late) == [1, 2, 3, 4]
    assert len(digests(study)) == 1


def test_without_a_quorum_everybody_is_waited_for(federation):
    run = federation([Trace(), Trace(), Trace(approves_s=100.0, away=((120.0, 500.0),))]).run()
    assert all(len(names) == 3 for names in members(run).values())
    assert run.seconds > 500


def test_an_excluded_domain_is_readmitted_and_catches_up(federation):
    study = federation()
    out = emails(study)[2]

    def steer(event):
        if isinstance(event, RoundFinished) and event.round == 1:
            study.study.folder.exclude(Exclusion(email=out, reason="maintenance"))
        if isinstance(event, RoundFinished) and event.round == 3:
            study.study.readmit(out)

    run = study.run(steer)
    assert [event.domain for event in run.of(DomainExcluded)] == [out]
    assert [event.domain for event in run.of(DomainReadmitted)] == [out]
    assert {number: out in names for number, names in members(run).items()} == {1: True, 2: False, 3: False, 4: True}
    assert opened(study, out) == [1, 2, 3, 4]
    assert len(digests(study)) == 1


def test_weights_of_the_paper_come_from_the_losses_of_the_round_itself(federation):
    traces = [Trace(up_mbps=rate, latency_s=0.001) for rate in (100.0, 20.0, 2.0)]
    study = federation(traces, aggregation={"weights": "paper", "alpha": 0.5, "largest_share": 1.0})
    run = study.run()
    last = run.of(Weighed)[-1]
    fast, _, slow = emails(study)
    assert last.shares[fast] < last.shares[slow]  # the paper's rule: the slower the link, the more it counts
    assert last.bandwidths[fast] == pytest.approx(5.0, rel=0.05)
    assert last.bandwidths[slow] == pytest.approx(0.1, rel=0.05)
    assert last.shares[slow] / last.shares[fast] == pytest.approx(50**0.5, rel=0.1)
    kinds = [event.kind for event in run.of(TicketSent) if event.round == 2]
    assert sorted(set(kinds)) == ["confirm", "seal", "train"]
    assert len(digests(study)) == 1


def test_a_function_of_ones_own_weighs_and_is_not_asked_again(federation):
    study = federation(aggregation={"weights": "custom"})
    asked = []

    def by_examples_squared(facts):
        asked.append(dict(facts))
        return {email: known.examples**2 for email, known in facts.items()}

    run = study.run(weights=by_examples_squared)
    assert list(run.of(Weighed)[0].shares.values()) == pytest.approx([1 / 14, 4 / 14, 9 / 14])
    assert len(asked) == 4
    assert all(known.loss > 0 for known in asked[0].values())


def test_no_domain_counts_for_more_than_the_largest_share(federation):
    traces = [Trace(examples=10), Trace(examples=10), Trace(examples=1000)]
    run = federation(traces, aggregation={"largest_share": 0.5}).run()
    assert list(run.of(Weighed)[0].shares.values()) == pytest.approx([0.25, 0.25, 0.5])


def test_balanced_steps_make_all_domains_ready_together(federation):
    traces = [Trace(step_s=1.0), Trace(step_s=2.0), Trace(step_s=5.0)]
    same = federation(traces).run()
    study = federation(traces, schedule={"local_steps": "balanced"})
    balanced = study.run()
    steps = [event.steps for event in balanced.of(RoundStarted)]
    assert steps[0] == {}
    assert list(steps[1].values()) == [10, 5, 2]
    assert balanced.seconds < 0.6 * same.seconds
    assert len(digests(study)) == 1


def test_a_slow_link_makes_the_rounds_coarser_and_shorter(federation):
    fast = Trace(step_s=0.02, up_mbps=1000.0, down_mbps=1000.0)
    slow = fast.model_copy(update={"up_mbps": 0.5, "down_mbps": 0.5})
    protection = {"bits": 10, "bits_choices": [4, 10]}
    study = federation([fast, fast, slow], parameters=60_000, protection=protection)
    run = study.run()
    assert [event.bits for event in run.of(RoundStarted)] == [None, 4, 4, 4]
    sizes = [event.bytes_up for event in run.of(RoundFinished)]
    assert sizes[1] < sizes[0]
    assert len(digests(study)) == 1
    quick = federation([fast, fast, fast], parameters=60_000, protection=protection).run()
    assert [event.bits for event in quick.of(RoundStarted)] == [None, 10, 10, 10]


@pytest.mark.parametrize("averaging", ["b_only", "alternate"])
def test_rounds_of_one_factor_and_a_server_optimiser_survive_an_absence(federation, averaging):
    traces = [Trace(), Trace(), Trace(away=((30.0, 90.0),))]
    aggregation = {"averaging": averaging, "server": {"optimizer": "adam"}}
    schedule = {"quorum": 2, "patience_s": 20}
    study = federation(traces, training=TRAINING | {"rounds": 12}, aggregation=aggregation, schedule=schedule)
    run = study.run()
    assert run.of(DomainMissed)
    assert opened(study, emails(study)[2]) == list(range(1, 13))
    assert len(digests(study)) == 1


def test_too_few_for_the_quorum_stops_with_what_they_said(federation):
    study = federation(3, schedule={"quorum": 3})
    first = emails(study)[0]
    study.domains[first].work.context.config = study.domains[first].work.context.config.model_copy(
        update={"policy": study.domains[first].work.context.config.policy.model_copy(update={"minimum_cohort": 9})}
    )
    with pytest.raises(StudyError, match=r"train of round 1 was not done by every domain .* wants 9"):
        study.run()
