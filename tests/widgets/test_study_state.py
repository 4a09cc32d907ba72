import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.researcher import events as ev
from fedpriv.study import Progress
from fedpriv.widgets.study_state import MOST_LINES, StudyState, after, replayed

STUDY = "a" * 64
MICU, SICU = "micu@h.example", "sicu@h.example"


def progress(domain, step, time_s=0.0):
    told = Progress(study=STUDY, round=1, state="training", step=step, steps=4)
    return ev.DomainProgress(study=STUDY, time_s=time_s, domain=domain, progress=told)


def answered(domain, number, heldout):
    metrics = {"heldout_loss": heldout, "train_loss": heldout - 0.5, "heldout_tokens": 10.0, "examples": 4.0}
    return ev.ResultReceived(study=STUDY, domain=domain, kind="train", round=number, metrics=metrics, seconds={})


def summed(number, attempt=1, loss=3.0):
    return ev.RoundFinished(
        study=STUDY,
        round=number,
        attempt=attempt,
        train_loss=loss - 0.5,
        heldout_loss=loss,
        weights={MICU: 0.75, SICU: 0.25},
        bytes_up=100,
        bytes_down=120,
        parameters=1000,
        seconds={"wall": 2.0},
    )


STARTED = ev.StudyStarted(study=STUDY, domains=(MICU, SICU), rounds=2, resumed=False)
FINISHED = ev.StudyFinished(
    study=STUDY,
    loss_before=3.0,
    loss_after=2.0,
    loss_after_by_domain={MICU: 2.0},
    heldout_tokens={MICU: 10.0},
    adapter_sha256="b" * 64,
    seconds={},
)
STORY = [
    STARTED,
    ev.Decided(study=STUDY, domain=MICU, decision="approved", reason="a person decided", checked=()),
    ev.DomainJoined(study=STUDY, domain=MICU),
    ev.DomainJoined(study=STUDY, domain=SICU),
    ev.RoundStarted(study=STUDY, round=1, attempt=1, domains=(MICU, SICU), steps={}),
    progress(MICU, 2),
    answered(MICU, 1, 3.1),
    answered(SICU, 1, 2.9),
    ev.Weighed(
        study=STUDY, round=1, rule="paper", alpha=0.5, shares={MICU: 0.75, SICU: 0.25}, bandwidths={}, staleness={}
    ),
    summed(1),
    ev.RoundStarted(study=STUDY, round=2, attempt=1, domains=(MICU, SICU), steps={}, bits=4),
    ev.DomainMissed(study=STUDY, domain=SICU, round=2, reason="quiet", carried=True),
    answered(MICU, 2, 2.5),
    summed(2, loss=2.5),
    FINISHED,
]


def test_a_whole_study():
    state = replayed(STORY)
    assert (state.phase, state.at_round, state.of_rounds) == ("finished", 2, 2)
    assert (state.rule, state.alpha, state.bits) == ("paper", 0.5, 4)
    assert [past.round for past in state.rounds] == [1, 2]
    assert dict(state.rounds[0].heldout) == {MICU: 3.1, SICU: 2.9}
    assert state.domains[SICU].missed == 2
    assert state.domains[MICU].share == 0.75
    assert state.domains[MICU].decision == "approved"
    assert state.finished == FINISHED
    assert any("round 1 is weighed" in line.text for line in state.log)


def test_phases_follow_each_other():
    phases = []
    state = StudyState()
    for event in [*STORY[:5], ev.Paused(study=STUDY, round=1), ev.Unpaused(study=STUDY, round=2)]:
        state = after(state, event)
        phases.append(state.phase)
    assert phases == ["deciding", "deciding", "preparing", "preparing", "running", "paused", "running"]


def test_progress_has_steps_and_leaves_no_line():
    before = replayed(STORY[:5])
    state = after(after(before, progress(MICU, 1, 10.0)), progress(MICU, 3, 12.0))
    shown = state.domains[MICU]
    assert (shown.doing, shown.step, shown.steps) == ("training", 3, 4)
    assert (shown.since_s, shown.seen_s) == (10.0, 12.0)
    assert state.log == before.log


def test_a_round_that_is_summed_again_takes_its_own_place():
    state = replayed([STARTED, summed(1), summed(2), summed(1, attempt=2, loss=9.0)])
    assert [(past.round, past.heldout_loss) for past in state.rounds] == [(1, 9.0)]


def test_an_excluded_domain_has_no_share_and_comes_back():
    gone = after(replayed(STORY), ev.DomainExcluded(study=STUDY, domain=SICU, reason="its disk died"))
    assert (gone.domains[SICU].excluded, gone.domains[SICU].share) == ("its disk died", None)
    back = after(gone, ev.DomainReadmitted(study=STUDY, domain=SICU))
    assert back.domains[SICU].excluded is None


def test_the_log_does_not_grow_for_ever_and_states_do_not_change():
    state = replayed([STARTED])
    first = dataclasses.replace(state)
    for number in range(1, MOST_LINES + 50):
        state = after(state, ev.Paused(study=STUDY, round=number))
    assert len(state.log) == MOST_LINES
    assert first == replayed([STARTED])
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.phase = "new"  # type: ignore[misc]


@given(st.lists(st.sampled_from(STORY), max_size=30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_any_history_can_be_read_in_two_parts(events, cut):
    first = replayed(events[:cut])
    for event in events[cut:]:
        first = after(first, event)
    assert first == replayed(events)
