"""Coroutines in a thread of their own, so that they work inside a notebook's event loop too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Awaitable[T]) -> T:
    """Run a coroutine to its end and return what it gives; an interruption here cancels it there."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def target() -> None:
        try:
            outcome.append(loop.run_until_complete(task))
        except BaseException as error:
            failure.append(error)
        finally:
            loop.close()

    task = loop.create_task(_as_coroutine(work))
    thread = threading.Thread(target=target, name="study")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work
