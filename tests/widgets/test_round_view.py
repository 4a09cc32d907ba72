import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.study import parse_plan
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.widgets.draft import changed
from fedpriv.widgets.round_view import ALPHAS, MOST_POINTS, charts_of, thinned, view_of
from fedpriv.widgets.study_facts import FactsReader, StudyFacts
from fedpriv.widgets.study_state import DomainState, LogLine, StudyState, after, replayed
from tests.widgets.busy_study import emails, one_round, opening
from tests.widgets.test_study_state import MICU, SICU, STORY

RUNNING = StudyFacts(submitted=True, running=True)


def shown(state, facts=RUNNING):
    view = view_of(state, facts, name="icu", now_s=5.0)
    json.dumps([view, charts_of(state, facts)], allow_nan=False)  # a page gets nothing that is no JSON
    return view


def test_a_whole_study_from_its_events():
    view = shown(replayed(STORY), StudyFacts(submitted=True, finished=True))
    assert (view["phase"], view["summed"], view["result"]) == ("finished", 2, {"before": 3.0, "after": 2.0})
    assert view["can"]["release"]
    assert not view["can"]["start"]
    micu, sicu = view["domains"]
    assert (micu["email"], micu["share"], sicu["missed"]) == (MICU, 0.75, 2)
    charts = charts_of(replayed(STORY), RUNNING)
    assert charts["loss"][0] == {"name": "cohort", "points": [[1, 3.0], [2, 2.5], [3, 2.0]], "strong": True}
    assert charts["loss"][1]["points"][0] == [1, 3.1]
    assert charts["bytes"][1] == {"name": "the same as plain fp32", "value": 4000}


@pytest.mark.parametrize(
    ("facts", "phase", "can"),
    [
        (StudyFacts(), "draft", {"submit"}),
        (StudyFacts(submitted=True), "stopped", {"start", "step", "exclude"}),
        (StudyFacts(submitted=True, running=True), "running", {"pause", "step", "stop", "exclude"}),
        (
            StudyFacts(submitted=True, running=True, paused_after=2),
            "running",
            {"start", "pause", "step", "stop", "exclude"},
        ),
        (StudyFacts(submitted=True, interrupted=True), "interrupted", {"start", "exclude"}),
        (StudyFacts(submitted=True, finished=True), "finished", {"release"}),
        (StudyFacts(submitted=True, finished=True, running=True), "releasing", {"stop"}),
    ],
)
def test_what_can_be_done_follows_from_where_it_is(facts, phase, can):
    view = shown(replayed(STORY[:8]), facts)
    assert view["phase"] == phase
    assert {name for name, possible in view["can"].items() if possible} == can
    assert view["next"] or phase == "running"


def test_the_weights_of_every_alpha_are_those_of_the_rule(study):
    plan = parse_plan(changed(study.plan.to_yaml(), "weights", "paper"))
    domains = {
        MICU: DomainState(email=MICU, examples=10, train_loss=2.0, bandwidth=4.0),
        SICU: DomainState(email=SICU, examples=90, train_loss=1.0, bandwidth=1.0),
    }
    preview = shown(StudyState(domains=domains), dataclasses.replace(RUNNING, plan=plan))["weights"]["preview"]
    shares = {row["name"]: row["shares"] for row in preview}
    assert len(shares["micu"]) == len(ALPHAS)
    assert shares["micu"][0] == pytest.approx(2 / 3, abs=1e-4)  # alpha 0: by mean loss
    assert shares["micu"][10] == pytest.approx(0.5 / 1.5, abs=1e-4)  # alpha 1: 2 / 4 beside 1
    assert shares["micu"][5] + shares["sicu"][5] == pytest.approx(1, abs=1e-3)


def test_epsilon_left_falls_with_the_rounds_trained(study):
    plan = study.plan.model_copy(update={"privacy": PrivacyChoice(epsilon=8), "training": study.plan.training})
    facts = dataclasses.replace(RUNNING, plan=plan, patients=dict.fromkeys(plan.emails, 200))

    def spent(trained):
        domains = {email: DomainState(email=email, trained=trained) for email in plan.emails}
        return shown(StudyState(domains=domains), facts)["domains"][0]["epsilon"]["spent"]

    assert spent(0) == 0
    assert 0 < spent(1) < spent(3) <= 8
    assert spent(3) == pytest.approx(8, rel=0.01)
    unknown = dataclasses.replace(facts, patients={})
    assert shown(StudyState(), unknown)["domains"][0]["epsilon"] == {"of": 8, "spent": None}


@given(st.text(max_size=40))
@settings(max_examples=50)
def test_text_of_others_is_made_visible(text):
    domain = DomainState(email=MICU, doing=text, reason=text)
    state = StudyState(domains={MICU: domain}, log=(LogLine(time_s=1.0, domain=MICU, text=text),))
    facts = dataclasses.replace(RUNNING, excluded={MICU: text}, problem=text)
    told = json.dumps(shown(state, facts), ensure_ascii=False)
    assert not any(sign in told for sign in "\x1b\u202e\u200b\x00")


def test_memory_and_messages_stay_flat_over_a_thousand_rounds():
    members = emails(16)
    state, sizes = replayed(opening(members, 1000)), []
    for number in range(1, 1001):
        for event in one_round(members, number):
            state = after(state, event)
        if number in (300, 1000):
            facts = dataclasses.replace(RUNNING)
            view, charts = view_of(state, facts, name="x", now_s=0.0), charts_of(state, facts)
            assert all(len(line["points"]) <= MOST_POINTS for line in charts["loss"])
            sizes.append((len(json.dumps(view)), len(json.dumps(charts)), len(state.rounds)))
    assert state.summed == 1000
    assert state.rounds[0].round == 1
    assert state.rounds[-1].round == 1000
    assert state.rounds[-1].round - state.rounds[-100].round == 99
    (view_300, charts_300, _), (view_1000, charts_1000, kept) = sizes
    assert kept <= 256
    assert view_1000 < 1.1 * view_300
    assert charts_1000 < 1.2 * charts_300
    assert view_1000 + charts_1000 < 100_000


@given(st.integers(1, 500), st.integers(2, 80))
def test_thinned_rounds_keep_their_order_and_their_ends(count, most):
    rounds = list(range(count))
    kept = thinned(rounds, most)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert len(kept) == min(count, most)


def test_facts_come_from_the_files_alone(study):
    reader = FactsReader(study)
    facts = reader.read()
    assert (facts.submitted, facts.running, facts.problem) == (False, False, "")
    study.pause()
    study.steering.change(alpha=1.5)
    assert (reader.read().paused_after, reader.read().alpha) == (0, 1.5)
    study.folder.freeze(study.folder.draft())
    assert reader.read().submitted
    (study.folder.root / "plan.yaml").write_text("training: {rounds: many}\n")
    assert "training > rounds" in reader.read().problem
