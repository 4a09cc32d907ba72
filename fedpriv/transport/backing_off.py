"""Doing less and less often what a peer asks for again and again: it may be hostile, and pays nothing for asking."""

from __future__ import annotations

import time
from collections.abc import Callable

_LATEST_SECONDS = 3600.0


class BackingOff:
    """Says of each thing of each peer whether it is time to do it again: at once, and then twice as late each time.

    Parameters
    ----------
    soonest_s : float
        After how many seconds the second time comes; no later one comes more than an hour after the one before.
    """

    def __init__(self, soonest_s: float) -> None:
        self._soonest_s = soonest_s
        self._next: dict[tuple[str, str], tuple[float, float]] = {}

    def is_due(self, peer: str, what: str) -> bool:
        """Say whether it is time; who hears so does it."""
        now = time.monotonic()
        next_s, pause_s = self._next.get((peer, what), (now, self._soonest_s))
        if now < next_s:
            return False
        self._next[peer, what] = now + pause_s, min(2 * pause_s, _LATEST_SECONDS)
        return True

    def forget(self, peer: str, is_meant: Callable[[str], bool]) -> None:
        """Forget things of a peer: what comes in their place is done at once."""
        for key in [(email, what) for email, what in list(self._next) if email == peer and is_meant(what)]:
            self._next.pop(key, None)
