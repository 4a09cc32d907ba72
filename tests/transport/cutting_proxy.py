"""A TCP proxy on loopback that cuts every connection again and again: after so many bytes, or so many seconds."""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field


@dataclass
class CuttingProxy:
    """Passes on what it gets, both ways.

    ``every_bytes`` and ``every_s`` say when all connections are reset; ``bytes_per_s`` is how fast the line is.
    """

    port_behind: int
    every_bytes: float = float("inf")
    every_s: float = float("inf")
    bytes_per_s: float = float("inf")
    cuts: int = 0
    moved: int = 0
    _open: set = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _since_bytes: int = 0
    _free_at: float = 0.0
    _ended: bool = False

    def __enter__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        if self.every_s < float("inf"):
            threading.Thread(target=self._clock, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._ended = True
        self._server.close()
        self.cut()

    def cut(self):
        """Reset every connection, as a line that drops."""
        with self._lock:
            open_now, self._open = self._open, set()
        for end in open_now:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.cuts += bool(open_now)

    def _clock(self):
        while not self._ended:
            time.sleep(self.every_s)
            self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self.port_behind))
                with self._lock:
                    self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._wait(len(data))
                other.sendall(data)
                with self._lock:
                    self.moved += len(data)
                    self._since_bytes += len(data)
                    is_over = self._since_bytes > self.every_bytes
                    self._since_bytes = 0 if is_over else self._since_bytes
                if is_over:
                    self.cut()
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def _wait(self, size):
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + size / self.bytes_per_s
        if start > now:
            time.sleep(start - now)
