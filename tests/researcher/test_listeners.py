import asyncio
from contextlib import contextmanager

import pytest

from fedpriv.errors import ConfigError, LockError, StudyError
from fedpriv.researcher.events import DomainProgress, StudyStarted, TrackerStopped, Waiting
from fedpriv.researcher.history import History
from fedpriv.researcher.listeners import Listeners
from fedpriv.researcher.trackers import Tracker, choosing
from fedpriv.study import Progress

STUDY = "0" * 64


class Rounds:
    """Stands where the orchestrator stands: its coroutine emits events in the study's thread."""

    def __init__(self, study, number, failure=None):
        self.study, self.number, self.failure = study, number, failure

    async def run(self):
        for step in range(self.number):
            self.study._listeners(Waiting(study=STUDY, domain="micu@x.org", what=str(step)))
            progress = Progress(study=STUDY, round=1, state="training", step=step, steps=self.number)
            self.study._listeners(DomainProgress(study=STUDY, domain="micu@x.org", progress=progress))
            await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return "finished"


@pytest.fixture
def rounds(study, monkeypatch):
    """Let the study's run be these rounds."""
    study.folder.freeze(study.folder.draft())

    def let(number, failure=None):
        @contextmanager
        def orchestrator(weights):
            yield Rounds(study, number, failure)

        monkeypatch.setattr(study, "_orchestrator", orchestrator)

    return let


async def watch(study, *subscribers, **options):
    """What a notebook's cell does: read the events in its own loop while the study runs."""
    stream = study.events()
    running = asyncio.create_task(asyncio.to_thread(study.run, *subscribers, **options))
    seen = [event async for event in stream]
    return seen, running


def test_a_loop_reads_the_events_while_the_study_runs_and_ends_with_it(study, rounds):
    rounds(200)

    async def cell():
        seen, running = await asyncio.wait_for(watch(study), 60)
        return seen, await running

    seen, finished = asyncio.run(cell())
    assert finished == "finished"
    assert [event.what for event in seen if isinstance(event, Waiting)] == [str(n) for n in range(200)]
    assert len(seen) == 400
    assert [event.what for event in study.history.events()] == [str(n) for n in range(200)]


@pytest.mark.parametrize("cause", ["failure", "lock", "tracker"])
def test_the_loop_ends_too_when_the_run_fails_or_does_not_begin(study, rounds, cause):
    rounds(1, failure=StudyError("a domain refused"))
    if cause == "lock":
        study.folder.lock_path.write_text("999999\n")

    async def cell():
        report_to = "nothing like that" if cause == "tracker" else "none"
        seen, running = await asyncio.wait_for(watch(study, report_to=report_to), 60)
        with pytest.raises({"failure": StudyError, "lock": LockError, "tracker": ConfigError}[cause]):
            await running
        return seen

    assert len(asyncio.run(cell())) == (2 if cause == "failure" else 0)


def test_a_tracker_that_fails_is_heard_of_by_all_and_the_study_finishes(study, rounds, monkeypatch):
    class Broken:
        def open(self, run):
            raise OSError("no route to host")

        def close(self, *, finished):
            raise AssertionError

    monkeypatch.setitem(choosing._KINDS, "broken", choosing._Kind("json", Broken))
    rounds(3)
    heard = []

    async def cell():
        seen, running = await asyncio.wait_for(watch(study, heard.append, report_to="broken"), 60)
        return seen, await running

    seen, finished = asyncio.run(cell())
    assert finished == "finished"
    for events in (seen, heard, list(study.history.events())):
        (stopped,) = [event for event in events if isinstance(event, TrackerStopped)]
        assert (stopped.tracker, stopped.reason) == ("broken", "no route to host")


def test_the_history_hears_first_and_streams_end_last(tmp_path):
    order = []

    class Closes:
        def __call__(self, event):
            order.append(("heard", len(history.records())))

        def close(self):
            order.append(("closed", stream.closed))

    history = History(tmp_path / "h.jsonl")
    listeners = Listeners(history)
    stream = listeners.stream(10)
    with listeners.during((Closes(),)):
        listeners(StudyStarted(study=STUDY, domains=(), rounds=1, resumed=False))
    listeners(StudyStarted(study=STUDY, domains=(), rounds=1, resumed=True))  # nobody but the history
    assert order == [("heard", 1), ("closed", False)]
    assert stream.closed
    assert len(history.records()) == 2


def test_trackers_are_told_of_through_the_study(study, rounds):
    study.folder.freeze(study.folder.draft())
    (made,) = choosing.open_trackers("tensorboard", study, study._listeners) or (None,)
    assert isinstance(made, Tracker)
    assert made._tell is study._listeners
