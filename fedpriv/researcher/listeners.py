"""Who hears of a study's events: its history first, then subscribers and streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedpriv.researcher.event_stream import EventStream
from fedpriv.researcher.events import Closing, Event, Subscriber
from fedpriv.researcher.history import History


class Listeners:
    """A subscriber that passes events on, each listener's in the order they came."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._others: list[Subscriber] = []

    def __call__(self, event: Event) -> None:
        for subscriber in (self._history, *self._others):
            subscriber(event)

    def stream(self, limit: int) -> EventStream:
        """Return a stream of what happens from now on, also in a run that is under way in another thread."""
        stream = EventStream(limit)
        self._others.append(stream)
        return stream

    @contextmanager
    def during(self, subscribers: tuple[Subscriber, ...]) -> Iterator[None]:
        """Let subscribers hear of a run; at its end, all that can be closed are, and nobody is listening any more.

        Streams are closed last: a tracker may still say that it failed. Nested, the inner end is the end for all.
        """
        self._others[:0] = subscribers
        try:
            yield
        finally:
            for listener in sorted(self._others, key=lambda other: isinstance(other, EventStream)):
                if isinstance(listener, Closing):
                    listener.close()
            self._others.clear()
