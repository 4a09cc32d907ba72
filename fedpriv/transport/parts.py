"""Large blobs in parts: what the parts are, signed by their sender, and a file that is filled with them as they arrive.

A blob of at most ``PART_BYTES`` is one object. A larger one is an index in its place, and its parts beside it, so that
a link that drops costs one part, never the whole, and nobody holds more than a few parts in memory.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, ValidationError

from fedpriv.errors import UntrustedError
from fedpriv.files import PRIVATE_FILE, sha256_hex, sync_folder, write_at
from fedpriv.study.messages import MAX_BLOB_BYTES, BlobRef
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section

PART_BYTES = 4 * 2**20
"""Size of every part but the last: part of the protocol.

With two parts under way, a link of 2.3 Mbit/s moves them within 30 s, so that one that drops that often still gets on;
and at 10 Mbit/s such drops cost a tenth of the time. Smaller ones would cost round trips: a part needs 1 to 3 of them.
"""
MAX_INDEX_BYTES = 2**19
"""An index of the largest blob, 8 GiB, has 0.14 MB."""


class PartsIndex(Section):
    """What a large blob consists of. It lies where a small blob would, encrypted and signed like it.

    Attributes
    ----------
    size_bytes, sha256 : int, str
        The whole blob's, as the message that announces it says.
    part_bytes : int
        Size of every part but the last.
    digests : tuple of str
        SHA-256 of each part's plain bytes, in order.
    """

    size_bytes: int = Field(ge=1, le=MAX_BLOB_BYTES)
    sha256: Sha256
    part_bytes: int = Field(ge=1)
    digests: tuple[Sha256, ...] = Field(min_length=1, max_length=MAX_BLOB_BYTES // PART_BYTES)

    @classmethod
    def read(cls, data: bytes, reference: BlobRef, *, part_bytes: int, sender: str) -> PartsIndex:
        """Return an index, if it is one of exactly the blob that a signed message names.

        Raises
        ------
        UntrustedError
            If it is malformed, of another blob, or has too few or too many parts.
        """
        kept = "No part was fetched"
        try:
            index = cls.model_validate_json(data)
        except ValidationError as error:
            raise UntrustedError(f"The index of {reference.name} from {sender} is malformed", kept=kept) from error
        if (index.size_bytes, index.sha256) != (reference.size_bytes, reference.sha256):
            raise UntrustedError(f"The index of {reference.name} from {sender} is of another blob", kept=kept)
        if index.part_bytes != part_bytes:
            raise UntrustedError(
                f"{reference.name} from {sender} is in parts of {index.part_bytes} bytes, not of {part_bytes}",
                kept=kept,
                todo="install the same version of fedpriv on both sides",
            )
        if len(index.digests) != index.count:
            raise UntrustedError(
                f"The index of {reference.name} from {sender} names {len(index.digests)} parts; {index.size_bytes} "
                f"bytes are {index.count}",
                kept=kept,
            )
        return index

    @property
    def count(self) -> int:
        """How many parts its size makes."""
        return -(-self.size_bytes // self.part_bytes)

    def size_of(self, number: int) -> int:
        """Return the size of a part, in bytes; the first is number 0."""
        return min(self.part_bytes, self.size_bytes - number * self.part_bytes)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Bytes to send, in memory or in a file that does not change, without more than a part of them at a time.

    Attributes
    ----------
    size_bytes : int
        How many.
    sha256 : str
        Digest of all of them.
    digests : tuple of str
        Digests of the parts, in order.
    part_bytes : int
        Size of every part but the last.
    data : bytes or Path
        Where they are.
    version : tuple of int
        What changes when the file is written to.
    """

    size_bytes: int
    sha256: str
    digests: tuple[str, ...]
    part_bytes: int
    data: bytes | Path
    version: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: bytes | Path, *, part_bytes: int) -> Source:
        """Look at all of it once."""
        if isinstance(data, bytes):
            return cls._read(io.BytesIO(data), data, part_bytes)
        with data.open("rb") as stream:
            return cls._read(stream, data, part_bytes, _version(stream))

    @classmethod
    def _read(cls, stream: BinaryIO, data: bytes | Path, part_bytes: int, version: tuple[int, ...] = ()) -> Source:
        whole, digests, size = hashlib.sha256(), [], 0
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as beside:  # two digests of the same bytes at once
            while piece := stream.read(part_bytes):
                wholly = beside.submit(whole.update, piece)
                digests.append(sha256_hex(piece))
                size += len(piece)
                wholly.result()
        return cls(
            size_bytes=size,
            sha256=whole.hexdigest(),
            digests=tuple(digests),
            part_bytes=part_bytes,
            data=data,
            version=version,
        )

    def part(self, number: int) -> bytes:
        """Return one part.

        Raises
        ------
        UntrustedError
            If the file was changed since it was looked at.
        """
        at = number * self.part_bytes
        if isinstance(self.data, bytes):
            return self.data[at : at + self.part_bytes]
        with self.data.open("rb") as stream:
            stream.seek(at)
            piece = stream.read(self.part_bytes)
            if _version(stream) != self.version:
                raise UntrustedError(f"{self.data.name} was changed while it was sent", kept="It was not announced")
        return piece


def _version(stream: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(stream.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


class PartialFile:
    """A file that is filled part by part beside its place, and goes there when it is whole and right.

    *Guarantee*: a part counts as held only if its bytes have the digest that the index names, whatever a kill or a
    power cut left on the disk; the file appears in its place only with the whole blob's digest.
    """

    def __init__(self, target: Path, index: PartsIndex) -> None:
        self._target, self._index = target, index
        self._path = target.with_name(f".{target.name}.{index.sha256[:16]}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.partial"):
            if left != self._path:  # of a blob that is not wanted any more
                left.unlink(missing_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE_FILE)
        self._whole, self._next = hashlib.sha256(), 0

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not held, looking at every byte that is there."""
        return [number for number in range(self._index.count) if not self._holds(number)]

    def _holds(self, number: int) -> bool:
        at, size = number * self._index.part_bytes, self._index.size_of(number)
        if os.fstat(self._descriptor).st_size < at + size:
            return False
        return sha256_hex(os.pread(self._descriptor, size, at)) == self._index.digests[number]

    def write(self, number: int, data: bytes) -> None:
        """Write a part that was checked; from any thread."""
        write_at(self._descriptor, data, number * self._index.part_bytes)

    def hold(self, number: int) -> None:
        """Take note that all parts up to this one are there: they are added to the digest of the whole, in order.

        The disk's cache still has them, and the next ones are on their way: it costs no time of its own.
        """
        for each in range(self._next, number + 1):
            size = self._index.size_of(each)
            self._whole.update(os.pread(self._descriptor, size, each * self._index.part_bytes))
        self._next = max(self._next, number + 1)

    def finish(self) -> None:
        """Put the file in its place.

        Raises
        ------
        UntrustedError
            If it is not what the index says; it is removed then.
        """
        self.hold(self._index.count - 1)
        os.ftruncate(self._descriptor, self._index.size_bytes)
        if self._whole.hexdigest() != self._index.sha256:
            self._path.unlink(missing_ok=True)
            raise UntrustedError(f"The parts of {self._target.name} do not make the blob", kept="They were removed")
        os.fsync(self._descriptor)
        self._path.replace(self._target)
        sync_folder(self._target.parent)

    def close(self) -> None:
        """Let go of the file; what is held of it stays for the next attempt."""
        os.close(self._descriptor)
