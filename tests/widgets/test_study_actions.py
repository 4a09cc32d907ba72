import queue

import pytest

from fedpriv.widgets.study_actions import StudyActions
from fedpriv.widgets.study_process import LOG, last_error, start_run


@pytest.fixture
def asked(study):
    answers = queue.Queue()
    actions = StudyActions(
        study, lambda what, text: answers.put(("done", what, text)), lambda what, text: answers.put(("no", what, text))
    )

    def ask(action):
        actions.ask(action)
        return answers.get(timeout=30)

    yield ask
    actions.close()


def test_steering_reaches_the_file_that_every_process_reads(asked, study):
    assert asked({"do": "pause"}) == ("done", "pause", "No round begins after round 0.")
    assert study.steering.read().paused_after == 0
    assert asked({"do": "adjust", "alpha": 1.5}) == ("done", "adjust", "From the next round on: alpha 1.5")
    assert study.steering.read().alpha == 1.5
    assert asked({"do": "stop"})[0] == "done"
    assert study.steering.read().stopped


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"do": "start"}, "not submitted yet"),
        ({"do": "release", "folder": "adapter"}, "not finished yet"),
        ({"do": "skip"}, "not submitted yet"),
        ({"do": "exclude", "domain": "micu@x.org"}, "not submitted yet"),
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
    kind, _, text = asked(action)
    assert kind == "no"
    assert words in text
    assert asked({"do": "pause"})[0] == "done"


def test_a_run_is_a_process_of_its_own_whose_error_can_be_read(study):
    study.folder.state.mkdir(exist_ok=True)
    assert last_error(study) == ""
    process = start_run(study)
    assert process.wait(timeout=60) != 0
    assert "Next: " in last_error(study)
    assert "\n" not in last_error(study)
    assert (study.folder.state / LOG).stat().st_mode & 0o077 == 0
