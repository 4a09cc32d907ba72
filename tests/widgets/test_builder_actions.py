"""What a person asks of a study that is being written: on the disk at once, saved, tried, and sent as it stands."""

import threading
import time

import pytest
from pydantic import ValidationError

from fedpriv.errors import ConfigError, ExistsError, FedprivError, PlanError, StudyError
from fedpriv.researcher import Study
from fedpriv.study.plan import MemberChoice
from fedpriv.training.base_model import ensure_model
from fedpriv.training.recipe import stock_recipe
from fedpriv.widgets.builder import Builder
from fedpriv.widgets.builder_actions import ACTIONS, carry_out
from fedpriv.widgets.builder_files import first_files
from fedpriv.widgets.submit_child import submit_in_child


@pytest.fixture(scope="module", autouse=True)
def model():
    return ensure_model("tiny")


@pytest.fixture
def cohort(members):
    return [MemberChoice(email=email, fingerprint=keys.fingerprint) for email, keys in members.items()]


@pytest.fixture
def opened(researcher, cohort):
    """Open a builder, as often as wanted; all are closed at the end."""
    builders = []

    def opened(name="icu", recipe=None):
        builders.append(Builder(researcher, name, lambda: first_files(researcher, cohort, "tiny", recipe)))
        until(lambda: builders[-1].state.work is None)
        return builders[-1]

    yield opened
    for builder in builders:
        builder.close()


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def ask(builder, **action):
    return carry_out(builder, ACTIONS.validate_python(action))


def test_a_new_study_has_the_stock_recipe_and_its_model_s_digest(opened, model):
    builder = opened()
    plan = builder.state.draft.plan
    assert plan.base_model.digest == model.digest
    assert builder.state.recipe == stock_recipe()
    assert builder.state.notice.good
    until(lambda: builder.state.estimates.privacy)
    assert {level.level for level in builder.state.estimates.levels} >= {"fp32", "sealed", "plain"}
    with pytest.raises(StudyError, match="not saved yet"):
        builder.study  # noqa: B018


def test_a_new_study_needs_a_cohort_and_a_name(researcher, cohort):
    with pytest.raises(ConfigError, match="two domains"):
        first_files(researcher, cohort[:1], "tiny", None)
    with pytest.raises(PlanError, match="name"):
        Builder(researcher, "../x", dict)


def test_what_is_typed_survives_a_kernel_s_death(opened, researcher):
    builder = opened()
    half = builder.state.draft.text + "training: {\n"
    ask(builder, do="text", file="plan.yaml", text=half, page="p", number=7)
    ask(builder, do="text", file="train.py", text="def train(context): ...\n")
    assert (builder.state.typed.page, builder.state.typed.number) == ("", 0)
    again = opened()
    assert again.state.draft.text == half
    assert again.state.recipe == "def train(context): ...\n"
    assert not (researcher.studies / "icu").exists()


def test_controls_and_text_answer_in_sentences(opened):
    builder = opened()
    assert ask(builder, do="set", path="training.rounds", value=7) == "The plan is right."
    assert builder.state.draft.plan.training.rounds == 7
    assert ask(builder, do="set", path="training.rounds", value=0) == "One thing in the plan is not right yet."
    with pytest.raises(PlanError, match="no such setting"):
        ask(builder, do="set", path="cohort", value=None)
    with pytest.raises(PlanError, match="larger than"):
        ask(builder, do="text", file="plan.yaml", text="#" * 300_000)
    for odd in (
        {"do": "set", "path": "title", "value": ["x"]},
        {"do": "text", "file": "../x", "text": ""},
        {"do": "rm"},
    ):
        with pytest.raises(ValidationError):
            ACTIONS.validate_python(odd)


def test_another_model_is_looked_for_and_its_layers_written(opened):
    builder = opened()
    text = builder.state.draft.text.replace("- q_proj\n", "- c_attn\n")
    ask(builder, do="text", file="plan.yaml", text=text.replace(builder.state.draft.plan.base_model.digest, "a" * 64))
    ask(builder, do="set", path="base_model.name", value="no-such-model")
    until(lambda: builder.state.work is None)
    assert not builder.state.notice.good
    assert "no base model 'no-such-model'" in builder.state.notice.text
    ask(builder, do="set", path="base_model.name", value="tiny")
    until(lambda: builder.state.work is None)
    plan = builder.state.draft.plan
    assert plan.base_model.digest not in (None, "a" * 64)
    assert "c_attn" not in plan.lora.targets


def test_saving_writes_the_texts_as_they_are(opened, researcher):
    builder = opened()
    text = "# for the ward\n" + builder.state.draft.text
    ask(builder, do="text", file="plan.yaml", text=text)
    assert ask(builder, do="save").startswith("Saved to ")
    assert (researcher.studies / "icu" / "plan.yaml").read_text() == text
    assert builder.state.is_saved
    assert not (researcher.root / "drafts" / "icu.json").exists()
    assert Study.open(researcher, "icu").plan == builder.state.draft.plan == builder.study.plan
    ask(builder, do="set", path="training.rounds", value=9)
    assert not builder.state.is_saved
    again = opened()
    assert (again.state.draft.plan.training.rounds, again.state.is_saved) == (9, False)
    ask(again, do="save")
    assert Study.open(researcher, "icu").plan.training.rounds == 9


def test_what_is_no_plan_is_not_saved(opened, researcher):
    builder = opened()
    ask(builder, do="set", path="training.rounds", value=0)
    with pytest.raises(PlanError, match="not right yet: line"):
        ask(builder, do="save")
    with pytest.raises(PlanError):
        ask(builder, do="submit")
    with pytest.raises(PlanError):
        ask(builder, do="try")
    assert not (researcher.studies / "icu").exists()


def test_a_change_in_the_folder_is_not_written_over_unseen(opened, researcher):
    builder = opened()
    ask(builder, do="save")
    path = researcher.studies / "icu" / "plan.yaml"
    theirs = path.read_text().replace("rounds: 3", "rounds: 4")
    path.write_text(theirs)
    ask(builder, do="set", path="training.rounds", value=5)
    with pytest.raises(StudyError, match="were changed since"):
        ask(builder, do="save")
    assert path.read_text() == theirs
    ask(builder, do="read")
    assert (builder.state.draft.plan.training.rounds, builder.state.is_saved) == (4, True)
    path.write_text(theirs + "# again\n")
    ask(builder, do="set", path="training.rounds", value=6)
    with pytest.raises(StudyError):
        ask(builder, do="save")
    ask(builder, do="save")
    assert Study.open(researcher, "icu").plan.training.rounds == 6


def test_nothing_is_read_again_before_it_was_saved(opened):
    with pytest.raises(StudyError, match="no study icu yet"):
        ask(opened(), do="read")


def test_a_study_somebody_else_made_is_left_alone(opened, researcher, study):
    (study.folder.root).rename(researcher.studies / "other")
    builder = opened()
    (researcher.studies / "other").rename(researcher.studies / "icu")
    with pytest.raises(ExistsError):
        ask(builder, do="save")


def test_submitting_saves_and_sends_in_a_thread_and_then_nothing_is_changed(opened, researcher, monkeypatch):
    sent, go = threading.Event(), threading.Event()

    def submit(study, working):
        working("waiting for an answer of micu@x.org")
        sent.set()
        assert go.wait(20)
        study.folder.freeze(study.folder.draft())
        return study.folder.submitted_id()

    monkeypatch.setattr("fedpriv.widgets.builder.submit_in_child", submit)
    builder = opened()
    assert "on its way" in ask(builder, do="submit")
    assert sent.wait(20)
    assert builder.state.work.words == "waiting for an answer of micu@x.org"
    with pytest.raises(StudyError, match="Something is going on"):
        ask(builder, do="try")
    go.set()
    until(lambda: builder.state.work is None)
    assert builder.state.submitted == Study.open(researcher, "icu").folder.submitted_id()
    for action in ({"do": "set", "path": "title", "value": "x"}, {"do": "save"}, {"do": "read"}, {"do": "submit"}):
        with pytest.raises(ExistsError, match="submitted already"):
            ask(builder, **action)
    assert opened().state.submitted == builder.state.submitted


def test_a_study_that_cannot_be_sent_says_so_and_stays_a_draft(opened, monkeypatch):
    def submit(study, working):
        raise StudyError("Waited 120 s for an answer of micu@x.org", kept="Nothing was sent", todo="check its service")

    monkeypatch.setattr("fedpriv.widgets.builder.submit_in_child", submit)
    builder = opened()
    ask(builder, do="submit")
    until(lambda: builder.state.work is None)
    assert (builder.state.notice.good, builder.state.submitted) == (False, "")
    assert "check its service" in builder.state.notice.text
    ask(builder, do="set", path="title", value="again")


def test_a_recipe_is_tried_on_mock_data_with_progress_and_losses(opened, researcher):
    builder = opened()
    steps = []
    change = builder.change

    def watched(how):
        change(how)
        if builder.state.work is not None:
            steps.append((builder.state.work.step, builder.state.work.steps))

    builder.change = watched
    ask(builder, do="set", path="training.steps", value=40)
    ask(builder, do="try", steps=3)
    until(lambda: builder.state.work is None)
    trial = builder.state.trial
    assert (trial.outcome, trial.reason, trial.steps) == ("passed", "", 3)
    assert (3, 3) in steps
    assert trial.heldout_after != trial.heldout_before
    assert trial.metrics["train_loss"] > 0
    assert trial.study == builder.state.request().study
    until(lambda: any(one.name == "by the last try" for one in builder.state.estimates.times))
    assert not (researcher.root / "state" / "tries").exists()


def test_a_recipe_that_fails_says_where(opened):
    builder = opened(recipe="def train(context):\n    raise ValueError('no')\n")
    ask(builder, do="try", steps=1)
    until(lambda: builder.state.work is None)
    assert builder.state.trial.outcome == "failed"
    assert "ValueError in line 2 of train.py" in builder.state.notice.text


def test_a_try_can_be_stopped(opened, researcher):
    builder = opened(recipe="def train(context):\n    while True: pass\n")
    ask(builder, do="try", steps=1)
    until(lambda: builder.state.work is not None)
    ask(builder, do="stop")
    until(lambda: builder.state.work is None)
    assert "stopped" in builder.state.notice.text
    assert not (researcher.root / "state" / "tries").exists()


def test_a_mistake_of_ours_ends_the_work_and_is_said(opened, monkeypatch):
    monkeypatch.setattr("fedpriv.widgets.builder_work.model_of", lambda plan: 1 / 0)
    builder = opened()
    ask(builder, do="try")
    until(lambda: builder.state.work is None)
    assert "fedpriv itself made a mistake (ZeroDivisionError)" in builder.state.notice.text


def test_closing_ends_the_threads(opened):
    builder = opened()
    builder.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "estimates icu"]
    assert isinstance(builder.state.request_trouble(), str)
    assert FedprivError


def test_the_process_that_sends_ends_with_its_sentence(study):
    study.folder.freeze(study.folder.draft())
    with pytest.raises(StudyError, match=r"The study icu was submitted already\. The domains keep") as caught:
        submit_in_child(study, lambda *_: None)
    assert str(caught.value).count("Next:") == 1
