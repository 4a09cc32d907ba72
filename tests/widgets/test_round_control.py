import threading
import time

import pytest

pytest.importorskip("anywidget")

from fedpriv.researcher import Study
from fedpriv.widgets.round_control import RoundControl
from tests.widgets.test_study_state import STORY


class Told:
    """What a panel set its traits to, and in which thread."""

    def __init__(self, panel):
        self.threads, self.changed = set(), threading.Condition()
        panel.observe(self._note, ["view", "answer", "charts"])

    def _note(self, _change):
        with self.changed:
            self.threads.add(threading.current_thread())
            self.changed.notify_all()

    def wait(self, until, timeout=20):
        with self.changed:
            assert self.changed.wait_for(until, timeout)


@pytest.fixture
def control(study):
    control = RoundControl(study)
    yield control
    control.close()


def ask(control, **message):
    """Do what the front end does when somebody clicks."""
    control._handle_custom_msg(message, [])


def test_a_click_is_carried_out_and_answered_in_other_threads(study, control):
    told = Told(control)
    ask(control, do="pause")
    told.wait(lambda: control.answer.get("do") == "pause" and control.view["paused_after"] == 0)
    assert control.answer["good"]
    assert study.steering.read().paused_after == 0
    ask(control, do="start")
    told.wait(lambda: control.answer.get("do") == "start")
    assert not control.answer["good"]
    assert "not submitted yet" in control.answer["text"]
    assert threading.main_thread() not in told.threads


def test_a_choice_on_the_page_is_in_the_file_and_on_the_page_again(study, control):
    told = Told(control)
    ask(control, do="plan", choice="bits", value=4)
    told.wait(lambda: control.view["draft"]["bits"] == 4)
    assert study.plan.protection.bits == 4


def test_what_another_process_does_is_seen(study, control):
    told = Told(control)
    study.folder.freeze(study.folder.draft())
    for event in STORY:
        study.history(event)
    told.wait(lambda: control.view["summed"] == 2)
    told.wait(lambda: control.view["result"] == {"before": 3.0, "after": 2.0})
    assert control.charts["loss"][0]["name"] == "cohort"
    assert "2 of" in control.as_text()
    assert [card["email"] for card in control.view["domains"]] == list(study.plan.emails)


def test_a_new_panel_on_the_same_study_shows_the_same(study, control):
    for event in STORY[:10]:
        study.history(event)
    told = Told(control)
    told.wait(lambda: control.view["summed"] == 1)
    again = RoundControl(Study.open(study.researcher, study.folder.root.name))
    Told(again).wait(lambda: again.view["summed"] == 1)
    again.close()
    changing = {"now_s"}
    assert {k: v for k, v in again.view.items() if k not in changing} == {
        k: v for k, v in control.view.items() if k not in changing
    }
    assert again.charts == control.charts


def test_nothing_is_sent_while_nothing_changes(study, control):
    told = Told(control)
    time.sleep(1.5)
    assert not told.threads


def test_a_history_that_cannot_be_read_is_said_on_the_panel(study, control):
    told = Told(control)
    study.folder.history_path.write_text("not a record\n" * 3)
    told.wait(lambda: control.view["problem"])
    assert "history" in control.view["problem"]


def test_a_page_without_scripts_and_a_terminal_get_lines(control):
    data = control._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].startswith("Study icu")
    assert "micu@x.org" in data["text/html"]
    assert "<script" not in data["text/html"]


def test_closed_twice_and_collected_as_garbage_it_waits_for_nothing(study):
    control = RoundControl(study)
    control.close()
    control.close()
    control.__del__()


def test_a_closed_panel_leaves_no_thread(study):
    before = set(threading.enumerate())
    control = RoundControl(study)
    control.close()
    assert not {thread for thread in threading.enumerate() if thread not in before and thread.is_alive()}
