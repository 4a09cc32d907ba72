import threading
import time

import pytest

from fedpriv.researcher.live import LiveFile
from fedpriv.widgets.study_state import replayed
from fedpriv.widgets.study_watch import StudyWatch
from tests.widgets.test_study_state import MICU, STORY, progress


@pytest.fixture
def watched(study):
    states, problems, changed = [], [], threading.Condition()

    def on_state(state):
        with changed:
            states.append(state)
            changed.notify_all()

    watch = StudyWatch(study, on_state, problems.append)

    def wait(until):
        with changed:
            assert changed.wait_for(lambda: states and until(states[-1]), timeout=20), states[-1:]

    yield study, watch, states, problems, wait
    watch.close()


def test_what_another_process_appends_is_shown(watched):
    study, watch, _, problems, wait = watched
    for event in STORY[:5]:
        study.history(event)
    watch.start()
    wait(lambda state: state.phase == "running")
    for event in STORY[5:]:
        study.history(event)
    wait(lambda state: state.phase == "finished")
    assert watch.state == replayed(event for event in STORY if event is not STORY[5])
    assert problems == []


def test_progress_comes_from_the_live_file_and_nothing_is_shown_twice(watched):
    study, watch, states, _, wait = watched
    for event in STORY[:5]:
        study.history(event)
    watch.start()
    wait(lambda state: state.phase == "running")
    live = LiveFile(study.folder.state)
    live(progress(MICU, 3, time.time() + 1))
    live.close()
    wait(lambda state: state.domains[MICU].step == 3)
    time.sleep(0.5)
    assert states.count(states[-1]) == 1


def test_an_old_progress_does_not_take_the_place_of_what_came_after(watched):
    study, watch, states, _, wait = watched
    live = LiveFile(study.folder.state)
    live(progress(MICU, 3, 1.0))
    live.close()
    for event in STORY:
        study.history(event)
    watch.start()
    wait(lambda state: state.phase == "finished")
    time.sleep(0.4)
    assert states[-1].domains[MICU].steps == 0


def test_a_damaged_history_is_a_sentence(watched):
    study, watch, _, problems, _ = watched
    (study.folder.root / "history.jsonl").write_text("not json\n")
    watch.start()
    watch._thread.join(20)
    assert len(problems) == 1
    assert "history.jsonl" in problems[0]
