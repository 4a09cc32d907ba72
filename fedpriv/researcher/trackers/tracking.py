"""A tracker: a subscriber that reads the history in a thread of its own and hands rows to a sink.

The history is the only queue. An event only wakes the thread, which reads what is new from the file: a slow server
holds nobody up, memory stays what it is, and nothing is lost. A sink says which rows it holds already: a resumed study
goes on in the same run, and what it was not given before (no tracker, a kill, a server away) is made up for.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from fedpriv.errors import FedprivError
from fedpriv.researcher.event_words import sentence
from fedpriv.researcher.events import Event, TrackerStopped
from fedpriv.researcher.history import History
from fedpriv.researcher.trackers.rows import Row, rows

CLOSE_SECONDS = 60.0
"""How long the end of a run waits for a tracker that has not taken everything yet: its import may take half of it."""

_MOST_REASON = 300


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a sink knows of a study.

    Attributes
    ----------
    study : str
        The study id, which the run's id derives from: the same study is the same run, however often it is resumed.
    name : str
        What people call it.
    folder : Path
        Where sinks that write files write them, each in a folder of its own.
    labels : dict[str, str]
        Short name of each domain by its address.
    parameters : dict
        The plan as names and values.
    """

    study: str
    name: str
    folder: Path
    labels: dict[str, str]
    parameters: dict[str, str | int | float | bool]

    @property
    def id(self) -> str:
        """Name and study id, as a name of a file or a run."""
        return f"{self.name}-{self.study[:12]}"


class Sink(Protocol):
    """Where rows go. All methods are called in the tracker's thread, and raise what they like."""

    def open(self, run: TrackedRun) -> Collection[tuple[int, int]]:
        """Begin a run, or go on with it, and return the keys of rows that it holds whole."""
        ...

    def log(self, row: Row) -> None:
        """Take a row; after a return it is kept."""
        ...

    def close(self, *, finished: bool) -> None:
        """End the run, for now or, when the study is finished, for good."""
        ...


class Tracker:
    """Reports a study to one sink; a failure is said once, and never raised.

    As a subscriber it begins with the first event; ``with tracker: pass`` reports a history as it stands.

    Parameters
    ----------
    name : str
        What people call the sink.
    sink : Sink
        Where rows go.
    run : TrackedRun
        The study.
    history : History
        Of the study.
    tell : Callable[[Event], None], optional
        Called with :class:`TrackerStopped` when the sink failed, on the thread that brings an event or the end. By
        default it is a warning.
    """

    def __init__(
        self, name: str, sink: Sink, run: TrackedRun, history: History, tell: Callable[[Event], None] | None = None
    ) -> None:
        self.name = name
        self._sink, self._run, self._history, self._tell = sink, run, history, tell or _warn
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failure, self._told = "", False

    def __enter__(self) -> Tracker:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        """Note that the history has grown."""
        self._start()
        self._wake.set()
        self._tell_failure()

    def close(self) -> None:
        """Wait for what is not handed over yet, at most ``CLOSE_SECONDS``."""
        thread = self._thread
        if thread is None:
            return
        self._ending.set()
        self._wake.set()
        thread.join(CLOSE_SECONDS)
        if thread.is_alive() and not self._failure:
            self._failure = f"it had not taken everything {CLOSE_SECONDS:.0f} s after the end"
        self._tell_failure()

    def _start(self) -> None:
        if self._thread is None:  # a daemon: a server that hangs does not keep the program from ending
            self._thread = threading.Thread(target=self._work, name=f"tracker-{self.name}", daemon=True)
            self._thread.start()

    def _tell_failure(self) -> None:
        if self._failure and not self._told:
            self._told = True
            self._tell(TrackerStopped(study=self._run.study, tracker=self.name, reason=self._failure))

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            held = self._sink.open(self._run)
            try:
                finished = self._hand_over(held)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._sink.close(finished=False)
                raise
            self._sink.close(finished=finished)
        except BaseException as error:  # whatever a library raises, SystemExit too: the study goes on
            self._failure = in_words(error)

    def _hand_over(self, held: Collection[tuple[int, int]]) -> bool:
        """Log every row after the last one that the sink holds, until the end; return whether the study is finished."""
        past = rows(self._history.events(_ignore), self._run.labels)
        begin = max((number for number, row in enumerate(past, 1) if row.key in held), default=0)
        finished = False
        for number, row in enumerate(rows(self._history.follow(self._wait, _ignore), self._run.labels), 1):
            if number > begin:
                self._sink.log(row)
            finished = finished or row.final
        return finished

    def _wait(self) -> bool:
        self._wake.wait()
        self._wake.clear()
        return not self._ending.is_set()


def in_words(error: BaseException) -> str:
    """Return why a library failed as a part of a sentence: one line, of bounded length, without a URL's password."""
    text = error.what + (f"; {error.todo}" if error.todo else "") if isinstance(error, FedprivError) else str(error)
    line = re.sub(r"//[^/\s@]+@", "//", " ".join(text.split())) or type(error).__name__
    return line.rstrip(".") if len(line) <= _MOST_REASON else f"{line[: _MOST_REASON - 1]}…"


def _warn(event: Event) -> None:
    warnings.warn(sentence(event), stacklevel=3)


def _ignore(note: str) -> None:
    """Records of a newer version are no rows."""
