"""Pacing: how fast a party sends what is large, so that others on its line can work."""

from __future__ import annotations

import threading
import time

_BITS = 8


class Pace:
    """Lets at most so much through in the long run; shared by all threads that send.

    What is sent goes at the line's full speed, one piece at a time, and the next one waits until the average is right:
    pieces are parts of a blob, of at most 4 MiB. Messages and progress, which are small, do not pass here.

    Parameters
    ----------
    mbit_per_s : float or None
        Megabits (10^6) a second; None is no limit.
    """

    def __init__(self, mbit_per_s: float | None) -> None:
        self._bytes_per_s = None if mbit_per_s is None else mbit_per_s * 1e6 / _BITS
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, size_bytes: int) -> None:
        """Sleep until a piece of so many bytes may be sent."""
        if self._bytes_per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + size_bytes / self._bytes_per_s
        if start > now:
            time.sleep(start - now)
