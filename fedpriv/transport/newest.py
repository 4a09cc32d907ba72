"""News that nobody waits for: only the newest is sent, so that a slow store does not hold up what it tells about."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Sends what it is given in a thread of its own, one at a time; what is not sent when newer comes is forgotten.

    Parameters
    ----------
    send : Callable[[T], None]
        Does the sending; what it raises is dropped, whatever it is: news are a courtesy.
    """

    def __init__(self, send: Callable[[T], None]) -> None:
        self._send = send
        self._next: list[T] = []
        self._changed = threading.Condition()
        self._busy = False
        self.seconds = 0.0
        """Wall clock of the last sending that did not fail; 0 before there was one."""
        self._thread: threading.Thread | None = None

    def put(self, value: T) -> None:
        """Have ``value`` sent in place of anything that waits; returns at once."""
        with self._changed:
            self._next = [value]
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="news", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all is sent; return False if it takes longer than ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._next and not self._busy, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._next))
                value, self._busy = self._next.pop(), True
            started = time.perf_counter()
            try:
                # Also what nobody foresaw: the thread would end. Whoever waits for more than news hears of it there.
                with contextlib.suppress(Exception):
                    self._send(value)
                    self.seconds = time.perf_counter() - started
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
