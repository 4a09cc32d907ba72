"""The same work on many blocks: here, and in worker processes beside, in order, with a bounded number in memory.

Threads do not help: SEAL's Python module holds the interpreter's lock. Workers come from a fork server, because a
domain's process has threads, which a plain fork would copy in the middle of their work. They stay for the next map,
which saves a third of a second, but forget what they worked with.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from fedpriv.errors import ProtectionError

Result = TypeVar("Result")

_AHEAD = 2
"""Batches in flight for each worker process: one at work and one waiting."""

_BATCH = 4
"""Tasks that a worker process gets at a time, at most: one alone is done before this process finds the time to send
another. Towards the end they are fewer, so that all processes end together."""

_WAITING = 8
"""Finished results that wait for an earlier one, for each process, at most."""

_work: dict[bytes, Callable[..., Any]] = {}
"""In a worker process: what the map at hand made, by the map's own random name."""


def ordered_map(
    make: Callable[[], Callable[..., Result]], tasks: Iterable[tuple[Any, ...]], *, number: int, workers: int
) -> Iterator[Result]:
    """Yield ``make()(*task)`` for each task, in order.

    Parameters
    ----------
    make : callable
        Makes the function that does the work; with more than one worker it must be picklable (a
        :func:`functools.partial` of a class and plain data), and is called once in each process, anew for each map:
        the same work on another day has other files and other memory.
    tasks : iterable of tuple
        Arguments; taken as they are needed.
    number : int
        How many tasks there are.
    workers : int
        How many processes work: this one, and ``workers - 1`` others.

    Raises
    ------
    ProtectionError
        If a worker process was killed.
    """
    work = make()
    if workers == 1:
        for task in tasks:
            yield work(*task)
        return
    pool, name = _pool(workers - 1), os.urandom(16)
    source = _Source(tasks, number, workers)
    line: collections.deque[Future[list[Result]]] = collections.deque()
    try:
        while True:
            while sum(not future.done() for future in line) < (workers - 1) * _AHEAD and (batch := source.take(_BATCH)):
                line.append(pool.submit(_run, name, make, batch))
            if line and (line[0].done() or len(line) > workers * _WAITING):
                yield from line.popleft().result()
            elif batch := source.take(1):
                line.append(_done([work(*task) for task in batch]))
            elif line:
                yield from line.popleft().result()
            else:
                return
    except BrokenProcessPool as error:
        _pool.cache_clear()
        raise ProtectionError(
            "a worker process was killed", kept="Nothing was published", todo="try again; is there enough memory?"
        ) from error
    finally:
        for future in line:
            future.cancel()
        with contextlib.suppress(RuntimeError):  # the pool is broken: its processes have ended
            for _ in range(workers - 1):
                pool.submit(_forget)


def useful_workers(limit: int, parameters: int) -> int:
    """Return how many processes are worth having for an update of ``parameters`` values: one for each million."""
    return max(1, min(limit, parameters // 1_000_000))


class _Source:
    """Tasks that are handed out in batches, which get smaller towards the end."""

    def __init__(self, tasks: Iterable[tuple[Any, ...]], number: int, processes: int) -> None:
        self._tasks, self._left, self._processes = iter(tasks), number, processes

    def take(self, most: int) -> tuple[tuple[Any, ...], ...]:
        size = max(1, min(most, self._left // (4 * self._processes)))
        batch = tuple(itertools.islice(self._tasks, size))
        self._left -= len(batch)
        return batch


def _done(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


@functools.lru_cache(maxsize=1)
def _pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fedpriv.protection.levels", "tenseal.sealapi"])
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let a worker end when the process that it works for is killed: nobody else would tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _run(name: bytes, make: Callable[[], Callable[..., Any]], batch: tuple[tuple[Any, ...], ...]) -> list[Any]:
    if name not in _work:
        _work.clear()
        _work[name] = make()
    return [_work[name](*task) for task in batch]


def _forget() -> None:
    """Drop keys and memory of the last map; the pause lets every worker take one of these tasks."""
    _work.clear()
    time.sleep(0.01)
