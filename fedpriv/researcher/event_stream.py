"""Events to wait for: ``async for event in study.events()``, in a notebook's event loop or any other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict, deque

from fedpriv.researcher.events import DomainProgress, Event


class EventStream:
    """A subscriber that hands events over to a coroutine, across threads, and ends with the run.

    A slow reader slows nobody down: when ``limit`` events wait, the oldest :class:`DomainProgress` is dropped for each
    that comes. Other events are never dropped. They are few: some for each domain and round.

    Parameters
    ----------
    limit : int
        How many events wait at most before progress is dropped.

    Examples
    --------
    >>> stream = study.events()                                     # doctest: +SKIP
    >>> running = asyncio.create_task(asyncio.to_thread(study.run)) # doctest: +SKIP
    >>> async for event in stream:                                  # doctest: +SKIP
    ...     print(event)
    >>> finished = await running                                    # doctest: +SKIP
    """

    def __init__(self, limit: int = 1024) -> None:
        if limit < 1:
            raise ValueError(f"a stream of {limit} events holds nothing")
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, Event] = OrderedDict()
        self._progress: deque[int] = deque()
        self._number = 0
        self._dropped = 0
        self._closed = False
        self._readers: set[asyncio.Future[None]] = set()

    @property
    def dropped(self) -> int:
        """How many events of progress the reader was too slow for."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether no more events come."""
        return self._closed

    def __call__(self, event: Event) -> None:
        """Take an event; from any thread."""
        with self._lock:
            if self._closed:
                return
            self._number += 1
            self._waiting[self._number] = event
            if isinstance(event, DomainProgress):
                self._progress.append(self._number)
            if len(self._waiting) > self._limit and self._progress:
                del self._waiting[self._progress.popleft()]
                self._dropped += 1
        self._wake()

    def close(self) -> None:
        """End the stream after the events that wait; from any thread, any number of times."""
        with self._lock:
            self._closed = True
        self._wake()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while True:
            come = asyncio.get_running_loop().create_future()
            with self._lock:
                if self._waiting:
                    return self._take()
                if self._closed:
                    raise StopAsyncIteration
                self._readers.add(come)
            try:
                await come
            finally:
                with self._lock:
                    self._readers.discard(come)

    def _take(self) -> Event:
        number, event = self._waiting.popitem(last=False)
        if self._progress and self._progress[0] == number:
            self._progress.popleft()
        return event

    def _wake(self) -> None:
        with self._lock:
            readers = tuple(self._readers)
            self._readers.clear()
        for reader in readers:
            with contextlib.suppress(RuntimeError):  # its loop was closed: nobody waits any more
                reader.get_loop().call_soon_threadsafe(_set, reader)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
