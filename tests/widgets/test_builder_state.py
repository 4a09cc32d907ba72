"""A study that is being written: text and form are of the same plan, and nothing that was typed is lost."""

import json
import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedpriv.domain.trial import DryRun
from fedpriv.errors import PlanError, UntrustedError
from fedpriv.protection.sizes import update_bytes
from fedpriv.study import load_yaml, parse_plan
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training.base_model import ensure_model
from fedpriv.widgets.builder_estimates import privacy_of, sizes_of, times_of
from fedpriv.widgets.builder_state import read_draft, started, with_choice, with_file
from fedpriv.widgets.builder_view import view_of
from fedpriv.widgets.epsilon_child import privacy_in_child
from tests.study.study_plans import RECIPE, as_yaml, plans

TEXT = parse_plan(as_yaml(title="ICU")).to_yaml()


@pytest.fixture
def state():
    return started("icu", {"plan.yaml": TEXT, "train.py": RECIPE}, models=(("tiny", True), ("big", False)))


def controls(view):
    return {control["path"]: control for group in view["groups"] for control in group["controls"]}


# -- text -> form ------------------------------------------------------------------------------------------------------


@given(plan=plans())
def test_every_plan_s_text_is_read_as_it_is(plan):
    draft = read_draft(plan.to_yaml())
    assert (draft.plan, draft.troubles) == (plan, ())


@given(plan=plans(), cut=st.integers(0, 3000), inside=st.text(max_size=5))
@example(plan=parse_plan(as_yaml()), cut=60, inside="\x85\u2028\x85")
def test_a_half_typed_text_is_kept_and_never_an_error(plan, cut, inside):
    whole = plan.to_yaml()
    text = whole[:cut] + inside + whole[cut + len(inside) :]
    draft = read_draft(text)
    assert draft.text == text
    assert (draft.plan is None) == bool(draft.troubles)
    assert all(trouble.text and 0 <= trouble.line <= text.count("\n") + 2 for trouble in draft.troubles)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "words"),
    [
        ("rounds: 3", "rounds: three", "rounds", "training.rounds", "a whole number is needed, not 'three'"),
        ("rounds: 3", "rounds: 5000", "rounds", "training.rounds", "less than or equal to 1000"),
        ("rounds: 3", "rouns: 3", "rouns", "training.rouns", "there is no such setting"),
        ("level: sealed", "level: open", "level", "protection.level", "'sealed'"),
        ("mode: synchronous", "mode: buffered", "schedule", "schedule", "buffer belongs to mode buffered"),
        ("rounds: 3", "rounds: [", "", "", "This is no YAML"),
        ("title: ICU", "title: ICU\ntitle: again", "", "", "the key 'title' stands twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old, new, line, path, words):
    text = TEXT.replace(old, new)
    (trouble,) = read_draft(text).troubles
    assert words in trouble.text
    assert trouble.path == path
    if line:
        assert text.splitlines()[trouble.line - 1].strip().startswith(line)


def test_a_wrong_domain_is_found_at_its_line():
    text = TEXT.replace("chest@south.example", "Chest")
    trouble, _ = read_draft(text).troubles  # and then there are too few of them
    assert (trouble.path, text.splitlines()[trouble.line - 1]) == ("cohort.1.email", "- email: Chest")


def test_while_nothing_can_be_read_the_form_keeps_what_it_had_and_takes_nothing(state):
    broken = with_file(state, "plan.yaml", TEXT.replace("rounds: 3", "rounds: ["))
    view = view_of(broken)
    assert (view["readable"], view["valid"]) == (False, False)
    assert controls(view)["training.rounds"]["value"] == 3
    with pytest.raises(PlanError, match="cannot be read just now: This is no YAML"):
        with_choice(broken, "training.rounds", 4)
    with pytest.raises(PlanError, match="not right yet: line"):
        broken.request()
    mended = with_file(broken, "plan.yaml", TEXT.replace("rounds: 3", "rounds: 9"))
    assert controls(view_of(mended))["training.rounds"]["value"] == 9


# -- form -> text ------------------------------------------------------------------------------------------------------


def test_a_control_writes_its_line_and_no_other(state):
    commented = with_file(state, "plan.yaml", TEXT.replace("  rounds: 3", "  # short\n  rounds: 3  # try 5"))
    changed = with_choice(commented, "training.rounds", 5)
    assert changed.draft.text == commented.draft.text.replace("rounds: 3  # try 5", "rounds: 5  # try 5")
    assert changed.draft.plan.training.rounds == 5


def test_a_choice_out_of_range_is_kept_and_said_beside_its_control(state):
    changed = with_choice(state, "training.rounds", 5000)
    assert "rounds: 5000" in changed.draft.text
    shown = controls(view_of(changed))["training.rounds"]
    assert shown["value"] == 5000
    assert "training > rounds" in shown["wrong"]
    assert with_choice(changed, "training.rounds", 3).draft == state.draft


def test_a_control_without_a_meaning_says_why(state):
    shown = controls(view_of(state))
    assert shown["schedule.buffer"]["off"] == "only in mode buffered"
    assert shown["schedule.quorum"]["off"] == ""
    changed = controls(view_of(with_choice(state, "schedule.mode", "buffered")))
    assert (changed["schedule.buffer"]["off"], changed["schedule.buffer"]["value"]) == ("", 2)


def test_models_are_offered_and_the_one_of_the_text_in_any_case(state):
    options = controls(view_of(state))["base_model.name"]["options"]
    assert options == [("tiny", ""), ("big", "not on this machine yet")]
    other = with_choice(state, "base_model.name", "mine")
    assert controls(view_of(other))["base_model.name"]["options"][-1] == ("mine", "as the text says")


# -- the request -------------------------------------------------------------------------------------------------------


def test_the_request_is_the_texts_as_they_stand(state):
    commented = with_file(with_file(state, "plan.yaml", "# mine\n" + TEXT), "train.py", RECIPE + "# more\n")
    assert commented.request().files == {"plan.yaml": "# mine\n" + TEXT, "train.py": RECIPE + "# more\n"}
    assert commented.request_trouble() == ""


def test_what_is_wrong_beside_the_plan_is_said_too(state):
    hidden = with_file(state, "train.py", "x = 1\u200b\n")
    with pytest.raises(UntrustedError):
        hidden.request()
    assert "invisible characters" in view_of(hidden)["request_trouble"]
    told = with_choice(state, "task.kind", "mortality")
    told = with_file(told, "plan.yaml", told.draft.text.replace("template: null", "template: mine.txt"))
    assert "no file mine.txt" in told.request_trouble()
    assert "mine.txt" in replace(told, files={**told.files, "mine.txt": "x"}).request_trouble()


def test_where_it_stands_is_a_sentence(state):
    assert view_of(state)["standing"].startswith("Not saved yet")
    saved = replace(state, kept=state.files)
    assert view_of(saved)["standing"] == "Saved; nothing was sent."
    assert view_of(with_file(saved, "train.py", "x"))["standing"].startswith("Changed since it was saved")
    assert view_of(replace(saved, submitted="a" * 64))["standing"].startswith("Submitted")


# -- estimates ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def model():
    return ensure_model("tiny")


def test_bytes_are_those_of_the_planner_beside_plain_numbers(state):
    plan = parse_plan(TEXT)
    sizes, levels = sizes_of(plan)
    by_level = {level.level: level for level in levels}
    assert by_level["fp32"].bytes == 4 * 4096
    tensors = {f"base_model.model.{number}": 512 for number in range(8)}
    plain = plan.protection.model_copy(update={"level": "plain"})
    assert by_level["plain"].bytes == update_bytes(plain, tensors=tensors, clients=2)
    assert (by_level["sealed"].bits, by_level["ckks"].bits) == (10, 0)
    times = by_level["sealed"].bytes / by_level["fp32"].bytes
    assert f"{times:.2f} times the 16 KiB of plain fp32" in sizes[0].value
    half, _ = sizes_of(with_choice(state, "aggregation.averaging", "b_only").draft.plan)
    assert "8 KiB of plain fp32" in half[0].value


def test_sizes_of_a_model_that_is_not_here_are_not_known():
    (only,), levels = sizes_of(parse_plan(as_yaml(base_model__name="nowhere")))
    assert (only.value, only.how, levels) == ("not known", "the base model is not on this machine yet", ())


def trial(**changes):
    facts = {"study": "a" * 64, "tried_s": 0.0, "outcome": "passed", "walls": "none", "steps": 2, "threads": 1}
    return DryRun(**facts | {"examples": 19, "seconds": 4.0, "round_s": 10.0} | changes)


def test_a_round_s_time_is_the_plan_s_bound_until_a_try_was_made():
    plan = parse_plan(as_yaml(training__steps=5, training__max_seconds=600))
    assert [one.value for one in times_of(plan, None, None)] == ["10 min at most"]
    tried = times_of(plan, trial(), plan)  # three more steps in 6 s
    assert tried[1].value == "about 10 s a round"
    longer = plan.model_copy(update={"training": plan.training.model_copy(update={"steps": 50})})
    assert times_of(longer, trial(), plan)[1].value == "about 100 s a round"
    other = plan.model_copy(update={"training": plan.training.model_copy(update={"batch_size": 8})})
    assert times_of(other, trial(), plan)[1].value == "not known"
    assert len(times_of(plan, trial(outcome="failed", round_s=None), plan)) == 1
    short = parse_plan(as_yaml(training__steps=2))
    assert times_of(short, trial(round_s=4.0), short)[1].value == "about 4 s a round"


def test_epsilon_is_what_the_domains_accountant_says():
    plan = parse_plan(TEXT)
    assert "no differential privacy" in privacy_of(plan)[0].how
    private = plan.model_copy(update={"privacy": PrivacyChoice(epsilon=4.0, unit="domain")})
    hundred, thousand, _ = privacy_of(private)
    assert hundred.name == "epsilon at 100 patients"
    assert hundred.value.endswith("at delta 0.01")
    assert 3.9 < float(thousand.value.split()[0]) <= 4.0
    assert privacy_in_child(private) == privacy_of(private)
    assert privacy_in_child(plan) == privacy_of(plan)


def test_a_view_is_small_and_plain_json(state):
    view = view_of(replace(state, trial=trial(reason="x", log=("line",)), kept=state.files))
    assert view["trial"]["rows"][0] == ("outcome", "It ran, and a domain's gatekeeper would let its update leave. x.")
    assert view["trial"]["current"] is False
    assert len(json.dumps(view)) < 40_000
    begun = time.perf_counter()
    view_of(state)
    assert time.perf_counter() - begun < 5
    assert load_yaml(view["text"], source="x")
