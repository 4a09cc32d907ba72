"""Coroutines in a thread of their own, so that they work inside a notebook's event loop too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(
    work: Awaitable[T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
) -> T:
    """Run a coroutine to its end and return what it gives; an interruption here cancels it there."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    begun: Future[Callable[[], object]] = Future()

    async def noted() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel) if task else None)
        return await work

    def target() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                outcome.append(runner.run(noted()))
        except BaseException as error:
            failure.append(error)
        finally:
            if not begun.done():
                begun.set_result(lambda: None)

    thread = threading.Thread(target=target, name="study")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        begun.result()()
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome[0]
