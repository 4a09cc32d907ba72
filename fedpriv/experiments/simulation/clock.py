"""Virtual time for asyncio: whenever everything waits, the clock jumps to the next thing that is due."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from fedpriv.researcher.own_thread import run_in_thread

T = TypeVar("T")


class DeadlockError(RuntimeError):
    """Everything waits for something that nothing will bring about."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: what the loop would have slept, its clock moves on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError("Nothing is due any more, and the work is not done")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and moves only while everything waits."""

    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self._selector_of_time.now


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time; it must not use threads.

    Raises
    ------
    DeadlockError
        If it waits for something that never comes.
    """
    return run_in_thread(work, loop_factory=VirtualLoop)  # in a notebook, this thread has a loop already
