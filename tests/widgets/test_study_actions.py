import queue

import pytest

from fedpriv.widgets.action_queue import Answer
from fedpriv.widgets.study_actions import study_actions
from fedpriv.widgets.study_process import LOG, last_error, start_run


@pytest.fixture
def asked(study):
    answers = queue.Queue()
    actions = study_actions(study, answers.put)

    def ask(action):
        actions.ask(action)
        return answers.get(timeout=30)

    yield ask
    actions.close()


def test_steering_reaches_the_file_that_every_process_reads(asked, study):
    assert asked({"do": "plan", "choice": "weights", "value": "paper"}).good  # alpha has no meaning with fedavg
    assert asked({"do": "pause"}) == Answer(number=2, do="pause", good=True, text="No round begins after round 0.")
    assert study.steering.read().paused_after == 0
    answer = asked({"do": "adjust", "alpha": 1.5})
    assert answer == Answer(number=3, do="adjust", good=True, text="From the next round on: alpha 1.5")
    assert study.steering.read().alpha == 1.5
    assert asked({"do": "stop"}).good
    assert study.steering.read().stopped


def test_a_choice_is_written_into_the_draft_and_the_plan_before_is_kept(asked, study):
    old = (study.folder.root / "plan.yaml").read_text()
    assert asked({"do": "plan", "choice": "bits", "value": 4}).text == "plan.yaml: bits 4"
    assert study.plan.protection.bits == 4
    assert (study.folder.root / "plan.before.yaml").read_text() == old
    assert asked({"do": "plan", "choice": "weights", "value": "paper"}).good
    assert asked({"do": "plan", "choice": "alpha", "value": 1.5}).good
    assert asked({"do": "plan", "choice": "weights", "value": "uniform"}).good
    assert study.plan.aggregation.alpha == 0.5


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"do": "start"}, "not submitted yet"),
        ({"do": "release", "folder": "adapter"}, "not finished yet"),
        ({"do": "skip"}, "not submitted yet"),
        ({"do": "exclude", "domain": "micu@x.org"}, "not submitted yet"),
        ({"do": "plan", "choice": "bits", "value": 99}, "less than or equal to 16"),
        ({"do": "plan", "choice": "level", "value": "<b>"}, "protection > level"),
        ({"do": "plan", "choice": "title", "value": "x"}, "cannot be asked"),
        ({"do": "adjust", "alpha": 9}, "cannot be asked"),
        ({"do": "step", "rounds": 0}, "cannot be asked"),
        ({"do": "exclude", "domain": "<img src=x>"}, "cannot be asked"),
        ({"do": "format the disk"}, "cannot be asked"),
        ({"do": "pause", "more": 1}, "cannot be asked"),
        ("pause", "cannot be asked"),
        ([1], "cannot be asked"),
    ],
)
def test_what_cannot_be_done_comes_back_as_a_sentence_and_the_next_one_is_heard(asked, action, words):
    answer = asked(action)
    assert not answer.good
    assert words in answer.text
    assert asked({"do": "pause"}).good


def test_a_run_is_a_process_of_its_own_whose_error_can_be_read(study, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a notebook's kernel
    study.folder.state.mkdir(exist_ok=True)
    assert last_error(study) == ""
    process = start_run(study)
    assert process.wait(timeout=60) != 0
    assert "Next: " in last_error(study)
    assert "\n" not in last_error(study)
    assert (study.folder.state / LOG).stat().st_mode & 0o077 == 0
