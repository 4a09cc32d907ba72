"""What moves between this domain and the store while a ticket is carried out, measured for the round's schedule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedpriv.study.messages import LinkSample


@dataclass
class Traffic:
    """Bytes and seconds of one ticket's transfers; a small put tells what a message costs beside its size."""

    up_bytes: int = 0
    up_s: float = 0.0
    down_bytes: int = 0
    down_s: float = 0.0
    small_put_s: float = 0.0

    @contextmanager
    def up(self, size_bytes: int) -> Iterator[None]:
        """Count the block as the sending of so many bytes; nothing is counted if it fails."""
        started = time.perf_counter()
        yield
        self.up_s += time.perf_counter() - started
        self.up_bytes += size_bytes

    @contextmanager
    def down(self, size_bytes: int) -> Iterator[None]:
        """Count the block as the fetching of so many bytes; nothing is counted if it fails."""
        started = time.perf_counter()
        yield
        self.down_s += time.perf_counter() - started
        self.down_bytes += size_bytes

    def small_put(self, seconds: float) -> None:
        """Note what a put of a few bytes took; the quickest counts, as the least disturbed one, and 0 does not."""
        if seconds > 0:
            self.small_put_s = min(self.small_put_s or seconds, seconds)

    def sample(self) -> LinkSample:
        """Return what was measured so far."""
        return LinkSample(
            up_bytes=self.up_bytes,
            up_s=round(self.up_s, 6),
            down_bytes=self.down_bytes,
            down_s=round(self.down_s, 6),
            small_put_s=round(self.small_put_s, 6),
        )
