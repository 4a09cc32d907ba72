"""For panels that show a state which other threads change: draws it now and then, and shows it without scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fedpriv.widgets.sheet import Sheet, to_html, to_text

EVERY_S = 0.1
"""Between two drawings: as often as a person sees a difference."""


class Pump:
    """A thread that draws after something changed, ten times a second at most.

    Parameters
    ----------
    draw : Callable[[], None]
        Called from the thread.
    name : str
        Of the thread.
    """

    def __init__(self, draw: Callable[[], None], name: str) -> None:
        self._draw = draw
        self._changed, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something changed; from any thread, returns at once."""
        self._changed.set()

    def close(self) -> None:
        """End, and wait until nothing is drawn any more; any number of times."""
        self._end.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._changed.wait()
            self._changed.clear()
            if not self._end.is_set():
                self._draw()
                self._end.wait(EVERY_S)


class ShownAsSheet:
    """For a panel: the same as a sheet, in terminals and on pages without scripts."""

    def sheet(self) -> Sheet:
        """Return what the panel shows as a sheet."""
        raise NotImplementedError

    def as_text(self) -> str:
        """Return it as lines for a terminal."""
        return to_text(self.sheet())

    def as_html(self) -> str:
        """Return it as still HTML."""
        return to_html(self.sheet())
