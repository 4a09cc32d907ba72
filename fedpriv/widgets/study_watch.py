"""Watches a study from outside the process that runs it, and says what it looks like whenever that changed.

The rounds run in a process of their own, so nothing here can slow them down, and a notebook's kernel may be restarted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedpriv.errors import FedprivError, StudyError
from fedpriv.researcher.live import read_live
from fedpriv.researcher.study import Study
from fedpriv.widgets.study_process import last_error
from fedpriv.widgets.study_state import StudyState, after

_SETTLED_S, _STARTING_S = 5.0, 60.0
"""How long no process may run a study that is waited for: once one did, and before, while it may be starting."""

EVERY_S = 0.15
"""Between two looks: more than twice as often as a person sees a bar move."""

OnState = Callable[[StudyState], None]


class StudyWatch:
    """A thread that reads a study's history and its domains' progress.

    *Guarantee*: the states given are those of :func:`fedpriv.widgets.study_state.replayed`, with the newest progress;
    memory does not grow with the history.

    Parameters
    ----------
    study : Study
        May be new, under way in any process, or finished.
    on_state : Callable[[StudyState], None]
        Called from the watch's own thread with the whole state, when it changed, about six times a second at most.
    on_problem : Callable[[str], None]
        Given a sentence when the history cannot be read; the watch has ended then.
    on_look : Callable[[], None], optional
        Called from the same thread at every look, for what is not in the history.
    """

    def __init__(
        self,
        study: Study,
        on_state: OnState,
        on_problem: Callable[[str], None],
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._study, self._on_state, self._on_problem, self._on_look = study, on_state, on_problem, on_look
        self._end = threading.Event()
        self._shown: StudyState | None = None
        self.state = StudyState()
        self._thread = threading.Thread(target=self._run, name=f"watch {study.folder.root.name}", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def close(self) -> None:
        """End, and wait until nothing is called any more; any number of times, not from the watch's own thread."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            for event in self._study.history.follow(self._look, self._on_problem):
                self.state = after(self.state, event)
        except (FedprivError, OSError) as error:
            self._on_problem(str(error))

    def _look(self) -> bool:
        """Show what was read, wait, and say whether to look again."""
        for event in read_live(self._study.folder.state):
            known = self.state.domains.get(event.domain)
            if known is not None and event.time_s > known.since_s:
                self.state = after(self.state, event)
        if self.state != self._shown:
            self._shown = self.state
            self._on_state(self.state)
        self._on_look()
        return not self._end.wait(EVERY_S)


def wait_until(study: Study, until: Callable[[StudyState], bool], *, timeout_s: float = 600.0) -> StudyState:
    """Wait until a study that runs in another process looks as wanted, and return how it looks then.

    Raises
    ------
    StudyError
        If it does not within ``timeout_s``, or no process runs it any more: with what that ended with.
    """
    found, problems, changed = list[StudyState](), list[str](), threading.Event()

    def on_state(state: StudyState) -> None:
        if not found and until(state):
            found.append(state)
            changed.set()

    def on_problem(sentence: str) -> None:
        problems.append(sentence)
        changed.set()

    watch = StudyWatch(study, on_state, on_problem)
    watch.start()
    begun = seen = time.monotonic()
    patience_s = _STARTING_S
    try:
        while not changed.wait(0.5) and time.monotonic() - begun < timeout_s and time.monotonic() - seen < patience_s:
            if study.status()["running"]:
                seen, patience_s = time.monotonic(), _SETTLED_S
    finally:
        watch.close()
    if found:
        return found[0]
    what = problems[0] if problems else last_error(study) or f"The study {study.folder.root.name} does not get there"
    raise StudyError(what, kept="Everything it did is kept", todo="look at it with `fedpriv study watch`")
