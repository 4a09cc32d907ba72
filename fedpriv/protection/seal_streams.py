"""SEAL's streams: how bytes get into and out of it, since it reads and writes by path only.

:class:`Bridge` gives it a file in memory, so that no plain value meets a disk.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import zstandard

from fedpriv.errors import ProtectionError

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_VERSION = (4, 3)
_RAW, _ZSTD = 0, 2
MAX_STREAM_BYTES = 2**17


class Bridge:
    """A private file for SEAL's streams: in memory on Linux, else in a folder that only this user can read."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("fedpriv")
            self._path = f"/proc/self/fd/{self._descriptor}"
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="fedpriv-")
            self._path = str(Path(self._folder.name) / "stream")
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def saved(self, thing: Any) -> bytes:
        """Return the stream that ``thing`` of SEAL writes."""
        os.ftruncate(self._descriptor, 0)
        thing.save(self._path)
        return os.pread(self._descriptor, MAX_STREAM_BYTES, 0)

    def load(self, thing: Any, context: Any, stream: bytes) -> None:
        """Let ``thing`` of SEAL read a stream; raises what SEAL raises."""
        self.put(stream)
        self.read(thing, context)

    def put(self, stream: bytes) -> None:
        """Hold a stream for :meth:`read`."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, stream, 0)

    def put_end(self, data: bytes) -> None:
        """Replace the last bytes of the stream that is held."""
        os.pwrite(self._descriptor, data, os.fstat(self._descriptor).st_size - len(data))

    def read(self, thing: Any, context: Any) -> None:
        """Let ``thing`` of SEAL read the stream that is held; raises what SEAL raises."""
        thing.load(context, self._path)

    def __del__(self) -> None:
        os.close(self._descriptor)


def raw_head(size: int) -> bytes:
    """Return what SEAL writes before ``size`` bytes that are not compressed."""
    total = _HEADER.size + size
    return _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, _RAW, 0, total)


def with_head(body: bytes) -> bytes:
    """Return a stream that SEAL reads, uncompressed; the inverse of :func:`stream_body`."""
    return raw_head(len(body)) + body


def stream_body(stream: bytes) -> bytes:
    """Return what a stream of SEAL holds, uncompressed; only for streams that our own SEAL wrote.

    Raises
    ------
    ProtectionError
        If SEAL wrote another form than the one known here.
    """
    if len(stream) < _HEADER.size:
        raise foreign_seal()
    head = _HEADER.unpack_from(stream)
    known = (_MAGIC, _HEADER.size, *_VERSION)
    if head[:4] != known or head[6] != len(stream) or head[4] not in (_RAW, _ZSTD):
        raise foreign_seal()
    body = stream[_HEADER.size :]
    if head[4] == _RAW:
        return body
    try:  # a new decompressor each time: one that two threads share corrupts silently
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_STREAM_BYTES)
    except zstandard.ZstdError as error:
        raise foreign_seal() from error


def foreign_seal() -> ProtectionError:
    """Return the error for streams of another SEAL than the one known here."""
    return ProtectionError("SEAL writes streams in another form than expected", todo="install tenseal 0.3.18")
