"""What a tracker promises whatever its sink does; the sinks themselves are tested with their libraries."""

import threading
import time

import pytest

from fedpriv.errors import ConfigError
from fedpriv.researcher.events import TrackerStopped
from fedpriv.researcher.trackers import Tracker, tracking
from fedpriv.researcher.trackers.tracking import in_words


class Sink:
    """Keeps rows in a list, as a server would; fails or hangs where a test wants it to."""

    def __init__(self, *, held=(), fail_at=None, error=None, hang=None):
        self.held, self.fail_at, self.hang = list(held), fail_at, hang
        self.error = error or OSError("No space left on device")
        self.logged, self.closed, self.threads = [], [], set()

    def open(self, run):
        return {row.key for row in self.held}

    def log(self, row):
        self.threads.add(threading.current_thread().name)
        if self.hang is not None:
            self.hang.wait()
        if row.step == self.fail_at:
            raise self.error
        self.logged.append(row)

    def close(self, *, finished):
        self.closed.append(finished)

    @property
    def steps(self):
        return [row.step for row in self.logged]


def test_it_begins_with_the_first_event_and_goes_on_to_the_last(story):
    sink = Sink()
    tracker = Tracker("sink", sink, story.run, story.history, pytest.fail)
    tracker.close()  # a run that did not begin has nothing to report
    assert sink.closed == []
    tracker(story.start())
    for number in (1, 2):
        story.trained(number)
        tracker(story.summed(number))
    tracker(story.finish())
    tracker.close()
    assert sink.steps == [1, 2, 3]
    assert sink.closed == [True]
    assert sink.threads == {"tracker-sink"}


def test_a_stopped_run_is_left_open_and_the_next_goes_on(story):
    first = Sink()
    story.start()
    story.round(1)
    assert story.track(first) == []
    assert (first.steps, first.closed) == ([1], [False])
    story.start(resumed=True)
    story.round(2)
    story.finish()
    second = Sink(held=first.logged)
    assert story.track(second) == []
    assert (second.steps, second.closed) == ([2, 3], [True])
    third = Sink(held=first.logged + second.logged)
    assert story.track(third) == []
    assert (third.steps, third.closed) == ([], [True])


def test_a_sink_that_lacks_the_past_is_given_it(story):
    for number in (1, 2):
        story.round(number)
    sink = Sink()
    story.track(sink)
    assert sink.steps == [1, 2]


def test_a_round_summed_again_is_reported_again(story):
    story.round(1)
    before = Sink()
    story.track(before)
    story.summed(1, attempt=2)
    after = Sink(held=before.logged)
    story.track(after)
    assert [row.values["attempt"] for row in after.logged] == [2.0]


def test_a_failure_is_told_once_and_stops_nothing(story):
    told = []
    sink = Sink(fail_at=2)
    tracker = Tracker("sink", sink, story.run, story.history, told.append)
    tracker(story.start())
    for number in (1, 2, 3):
        tracker(story.round(number))
        tracker._thread.join(0.2)
    tracker(story.finish())
    tracker.close()
    assert sink.steps == [1]
    assert [(type(event), event.tracker, event.reason) for event in told] == [
        (TrackerStopped, "sink", "No space left on device")
    ]
    assert sink.closed == [False]


def test_even_an_exit_stops_only_the_tracker(story):
    story.round(1)
    (event,) = story.track(Sink(fail_at=1, error=SystemExit(3)))
    assert event.reason == "3"


def test_without_anybody_to_tell_it_is_a_warning(story):
    story.round(1)
    with (
        pytest.warns(UserWarning, match="sink gets no more: No space left"),
        Tracker("sink", Sink(fail_at=1), story.run, story.history),
    ):
        pass


def test_a_slow_sink_holds_nobody_up(story, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.2)
    told, hang = [], threading.Event()
    sink = Sink(hang=hang)
    tracker = Tracker("sink", sink, story.run, story.history, told.append)
    begun = time.monotonic()
    for number in (1, 2, 3):
        tracker(story.round(number))
    assert told == []
    tracker.close()
    assert time.monotonic() - begun < 20  # it would hang for ever
    assert [event.reason for event in told] == ["it had not taken everything 0 s after the end"]
    hang.set()
    tracker._thread.join(10)
    assert sink.steps == [1, 2, 3]  # nothing was thrown away


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("two\n lines."), "two lines"),
        (KeyError(), "KeyError"),
        (ConfigError("it is closed", todo="open it"), "it is closed; open it"),
        (OSError("https://ada:secret@tracker.example/api is away"), "https://tracker.example/api is away"),
    ],
)
def test_reasons_are_one_line_without_passwords(error, words):
    assert in_words(error) == words


def test_long_reasons_are_cut():
    assert len(in_words(OSError("x" * 5000))) == 300
