"""How a service ends: in the main thread and in order, when it is told to or when its parent is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType


class Stop(BaseException):
    """Raised in the main thread by SIGTERM and SIGINT, so that everything is put away on the way out."""


class Stopping:
    """Whether this process was told to end.

    A library in whose midst :class:`Stop` was raised may swallow it, or turn it into an error of its own, as DuckDB
    does: who handles errors asks here first, so that none of them is taken for one of the work.
    """

    def __init__(self) -> None:
        self._asked, self._is_ending = threading.Event(), False

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    def listen(self, parent: int | None) -> None:
        """Have SIGTERM and SIGINT raise :class:`Stop` from now on, and also the end of the process ``parent``."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._asked.set()
            if not self._is_ending:
                raise Stop

        self._is_ending = False
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if parent is not None:
            threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()

    def end(self) -> None:
        """Raise nothing any more: whoever is told twice puts everything away all the same."""
        self._is_ending = True

    def check(self) -> None:
        """Raise :class:`Stop` again if it was raised."""
        if self.is_asked:
            raise Stop


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
