"""A line to a server on loopback that is as slow as one wants, and is cut again and again: a TCP proxy of ours."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

_READ_BYTES = 65536
_LINGER = struct.pack("ii", 1, 0)
"""Closing resets the connection, and sends nothing that waits."""


@dataclass(kw_only=True)
class Line:
    """Passes on what it gets, both ways; use it as a context.

    Attributes
    ----------
    behind : int
        The server's port.
    every_bytes, every_s : float
        After so many bytes, or seconds, all connections are reset.
    mbit_per_s : float
        How fast it is, both ways together.
    port, cuts, moved_bytes : int
        Where it listens, how often it was cut, and what went over it.
    """

    behind: int
    every_bytes: float = float("inf")
    every_s: float = float("inf")
    mbit_per_s: float = float("inf")
    port: int = 0
    cuts: int = 0
    moved_bytes: int = 0
    _open: set[socket.socket] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _since_bytes: int = 0
    _free_at: float = 0.0

    def __enter__(self) -> Line:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, name="line", daemon=True).start()
        if self.every_s < float("inf"):
            threading.Thread(target=self._clock, name="line", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, as a line that drops."""
        with self._lock:
            open_now, self._open = self._open, set()
        for end in open_now:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.cuts += bool(open_now)

    def _clock(self) -> None:
        while not self._ended.wait(self.every_s):
            self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self.behind))
                with self._lock:
                    self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), name="line", daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_READ_BYTES):
                self._wait(len(data))
                other.sendall(data)
                if self._is_over(len(data)):
                    self.cut()
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def _is_over(self, size_bytes: int) -> bool:
        with self._lock:
            self.moved_bytes += size_bytes
            self._since_bytes += size_bytes
            is_over = self._since_bytes > self.every_bytes
            self._since_bytes = 0 if is_over else self._since_bytes
            return is_over

    def _wait(self, size_bytes: int) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + 8e-6 * size_bytes / self.mbit_per_s
        if start > now:
            time.sleep(start - now)
