"""Watches a domain's folder from outside the process that serves it, and says what it looks like when that changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedpriv.errors import FedprivError
from fedpriv.widgets.owner_actions import OwnerDesk
from fedpriv.widgets.owner_reading import OwnerReader
from fedpriv.widgets.owner_state import OwnerState

EVERY_S = 1.0
_WHILE_TRYING_S = 0.3
_IDLE_SHARE = 9
"""A look that took long is followed by a pause of so many times as long: a long ledger costs a tenth of a core."""


class OwnerWatch:
    """A thread that looks at a domain about once a second, and at once when something was done at the desk.

    Parameters
    ----------
    desk : OwnerDesk
        Whose domain it is, and what is open.
    on_state : Callable[[OwnerState], None]
        Called from the watch's own thread with the whole state, when it changed.
    on_problem : Callable[[str], None]
        Given a sentence while the domain cannot be read; the watch goes on looking. Given nothing when it can again.
    """

    def __init__(
        self,
        desk: OwnerDesk,
        on_state: Callable[[OwnerState], None],
        on_problem: Callable[[str], None],
        *,
        reader: OwnerReader | None = None,
    ) -> None:
        self._desk, self._on_state, self._on_problem = desk, on_state, on_problem
        self._reader = reader or OwnerReader(root=desk.root)
        self._ended = threading.Event()
        self._shown: OwnerState | None = None
        self._problem = ""
        self._summed = False
        self._thread = threading.Thread(target=self._run, name=f"watch {desk.root.name}", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def close(self) -> None:
        """End, and wait until nothing is called any more; any number of times, not from the watch's own thread."""
        self._ended.set()
        self._desk.changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._desk.changed.clear()
            began = time.monotonic()
            problem = ""
            try:
                self._look()
            except (FedprivError, OSError) as error:
                problem = str(error)
            if problem != self._problem:
                self._problem = problem
                self._on_problem(problem)
            took = time.monotonic() - began
            trying = self._shown is not None and self._shown.trying is not None and self._shown.trying.running
            if not self._summed and not problem:
                self._summed = True  # the first look, without the privacy budget, is on the screen already
                continue
            self._desk.changed.wait(max(_WHILE_TRYING_S if trying else EVERY_S, _IDLE_SHARE * took))

    def _look(self) -> None:
        starting = self._desk.is_starting_service
        state = self._reader.look(self._desk.opened, self._desk.verified, starting=starting, gauge=self._summed)
        if state != self._shown:
            self._shown = state
            self._on_state(state)
