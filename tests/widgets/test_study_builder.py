"""The panel on a study that is being written: a thin view, in threads of its own."""

import json
import threading

import pytest

pytest.importorskip("anywidget")

from fedpriv.errors import ConfigError, PlanError, StudyError
from fedpriv.study.plan import MemberChoice
from fedpriv.training.base_model import ensure_model
from fedpriv.widgets import builder
from fedpriv.widgets.study_builder import StudyBuilder
from tests.widgets.test_round_control import Told, ask


@pytest.fixture(scope="module", autouse=True)
def model():
    return ensure_model("tiny")


@pytest.fixture
def build(researcher, members):
    panels = []

    def build(**parameters):
        cohort = [MemberChoice(email=email, fingerprint=keys.fingerprint) for email, keys in members.items()]
        panels.append(StudyBuilder(researcher, **{"name": "icu", "cohort": cohort, "base_model": "tiny"} | parameters))
        return panels[-1]

    yield build
    for panel in panels:
        panel.close()


def control(panel, path):
    return next(one for group in panel.view["groups"] for one in group["controls"] if one["path"] == path)


def test_text_and_form_are_in_step_in_other_threads(build):
    panel = build()
    told = Told(panel)
    told.wait(lambda: panel.view["work"] is None and panel.view["estimates"]["levels"])
    ask(panel, do="set", path="training.rounds", value=8)
    told.wait(lambda: "rounds: 8" in panel.view["text"])
    text = panel.view["text"].replace("rounds: 8", "rounds: 9  # mine")
    ask(panel, do="text", file="plan.yaml", text=text, page="p", number=1)
    told.wait(lambda: control(panel, "training.rounds")["value"] == 9)
    assert panel.view["typed"] == {"page": "p", "number": 1}
    assert panel.plan.training.rounds == 9
    ask(panel, do="text", file="plan.yaml", text=text + "rounds: [", page="p", number=2)
    told.wait(lambda: not panel.view["readable"])
    assert panel.view["text"].endswith("rounds: [")
    with pytest.raises(PlanError, match="no plan just now"):
        panel.plan  # noqa: B018
    ask(panel, do="set", path="training.rounds", value=3)
    told.wait(lambda: not panel.answer.get("good", True))
    assert "correct that line first" in panel.answer["text"]
    assert threading.main_thread() not in told.threads


def test_a_new_panel_shows_the_same(build):
    first = build()
    told = Told(first)
    told.wait(lambda: first.view["work"] is None)
    ask(first, do="set", path="title", value="<b>ICU</b>")
    told.wait(lambda: control(first, "title")["value"] == "<b>ICU</b>")
    second = build(cohort=())
    assert second.view["text"] == first.view["text"]
    json.dumps(second.view)
    assert "Study icu: <b>ICU</b>" in second.as_text()
    page = second._repr_mimebundle_()
    page = page[0] if isinstance(page, tuple) else page
    assert "&lt;b&gt;ICU&lt;/b&gt;" in page["text/html"]
    assert "<b>" not in page["text/html"]


def test_the_study_is_there_once_it_was_saved(build, study):
    panel = build(name="mine", cohort=(), plan=study.plan.model_copy(update={"title": "from a plan"}))
    told = Told(panel)
    told.wait(lambda: panel.view["work"] is None)
    assert panel.plan.title == "from a plan"
    with pytest.raises(StudyError, match="not saved yet"):
        panel.study  # noqa: B018
    ask(panel, do="save")
    told.wait(lambda: panel.view["saved"])
    assert panel.study.plan == panel.plan
    assert panel.study.folder.root.name == "mine"


def test_a_study_that_there_is_is_shown_as_it_lies_in_its_folder(build, study):
    panel = build(cohort=())
    assert panel.study.folder.root == study.folder.root
    assert panel.view["recipe"] == "def train(context):\n    return None\n"


def test_a_new_study_needs_its_domains(build):
    with pytest.raises(ConfigError, match="two domains or more"):
        build(cohort=())


def test_closing_ends_its_threads(build):
    panel = build(name="short")
    told = Told(panel)
    told.wait(lambda: panel.view["work"] is None)
    panel.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.endswith(" short")]


def test_two_panels_on_one_study_show_and_change_the_same(build):
    first, second = build(), build()
    told = Told(second)
    told.wait(lambda: second.view["work"] is None)
    ask(first, do="set", path="training.rounds", value=11)
    told.wait(lambda: control(second, "training.rounds")["value"] == 11)
    ask(second, do="set", path="training.steps", value=12)
    told.wait(lambda: control(second, "training.steps")["value"] == 12)
    assert (first.plan.training.rounds, first.plan.training.steps) == (11, 12)
    first.close()
    ask(second, do="set", path="training.rounds", value=13)
    told.wait(lambda: control(second, "training.rounds")["value"] == 13)


def test_a_closed_panel_that_is_collected_while_another_is_made_does_no_harm(build, monkeypatch):
    first = build(name="first")
    told = Told(first)
    told.wait(lambda: first.view["work"] is None)
    first.close()
    begun = []

    def started(*arguments, **others):
        begun.append(True)
        first.close()  # as its __del__ does, in whatever thread the garbage is collected
        return real(*arguments, **others)

    real = builder.started
    monkeypatch.setattr(builder, "started", started)
    assert build(name="second").view["name"] == "second"
    assert begun
