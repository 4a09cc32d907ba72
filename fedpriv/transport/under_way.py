"""Parts of a blob under way: how many at once, and who is told how far they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fedpriv.transport.parts import PartsIndex

Moved = Callable[[int, int], None]
"""Told how many bytes of how many have been moved, from one thread at a time."""

_AT_ONCE, _AT_ONCE_IF_QUICK, _QUICK_S = 2, 4, 1.0
"""Parts under way: one is encrypted or checked while the other is moved; more would share a slow link, and lose more.

Where parts take less than a second, it is the server that each of them waits for, and two more keep it busy.
"""


def move_all(
    numbers: list[int],
    move: Callable[[int], None],
    index: PartsIndex,
    on_moved: Moved,
    *,
    on_part: Callable[[int], None] = lambda number: None,
) -> None:
    """Move parts, a few at once, and tell of each in order; after the first error no other begins."""
    done, failed = index.size_bytes - sum(map(index.size_of, numbers)), threading.Event()
    places = _Places()

    def guarded(number: int) -> int:
        with places:
            if failed.is_set():
                return 0
            started = time.monotonic()
            try:
                move(number)
            except BaseException:
                failed.set()
                raise
            if time.monotonic() - started < _QUICK_S:
                places.add_one()
        return index.size_of(number)

    with ThreadPoolExecutor(_AT_ONCE_IF_QUICK, thread_name_prefix="part") as threads:
        try:
            for number, size in zip(numbers, threads.map(guarded, numbers), strict=True):
                done += size
                on_part(number)
                on_moved(done, index.size_bytes)
        except BaseException:  # also one of whoever is told, who wants no more of it
            failed.set()
            raise


class _Places:
    """How many parts may be under way: ``_AT_ONCE`` at first, and one more for each that was quick, up to a limit."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(_AT_ONCE)
        self._lock, self._count = threading.Lock(), _AT_ONCE

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()

    def add_one(self) -> None:
        with self._lock:
            if self._count < _AT_ONCE_IF_QUICK:
                self._count += 1
                self._free.release()
