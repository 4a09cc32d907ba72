"""Bounds of what a WebDAV server answers: it could be without end, or little that unpacks to much."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

MOST_BYTES = 64 * 2**20
"""Of one answer: four times the largest object that is asked for, a file of mock data, and a long listing."""
MOST_SECONDS = 300.0
"""Until the end of one answer: a part of a blob passes at 0.12 Mbit/s."""


def bound(answer: httpx.Response) -> None:
    """Have an answer whose body was not read yet end with an error where it goes on for too long.

    *Guarantee*: no more than ``MOST_BYTES`` of an answer are in memory. *Assumption*: the server sends something; else
    the client's own time for a read ends it.

    Raises
    ------
    httpx.RemoteProtocolError
        If it is compressed, which nobody asked for.
    """
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise httpx.RemoteProtocolError("its answer is compressed", request=answer.request)
    if isinstance(answer.stream, httpx.SyncByteStream):
        answer.stream = _Bounded(answer.stream)


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream, self._end = stream, time.monotonic() + MOST_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > MOST_BYTES:
                raise httpx.ReadError(f"its answer has more than {MOST_BYTES} bytes")
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout(f"its answer takes more than {MOST_SECONDS:.0f} s")
            yield piece

    def close(self) -> None:
        self._stream.close()
