"""One direction between two exchange folders: what a party left for another one, and how it gets there.

An exchange folder is a store in a local folder, laid out as ``fedpriv/transport/connection.py`` says: every party
writes only below its own address, and what is for one other party only below ``<me>/to/<other>``. The copy of a file
has the time stamp of the original, so two listings tell what is missing, as rsync does, and nobody keeps a state.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"[a-z0-9][a-z0-9._+-]*@[a-z0-9][a-z0-9.-]*")
VERSIONS, MOST_VERSIONS_BYTES = "fedpriv.json", 64 * 1024
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,199}")
_NUMBERED = re.compile(r"to/[^/]+/(?:inbox|outbox)/[0-9]{12}")
_QUIET = re.compile(r"to/[^/]+/(?:status|taken\.json)")
_TEMPORARY = ".part-"
_MOST_PARTS, _MOST_FILES = 6, 200_000
_SETTLED_US = 50_000
"""A younger file is sent at the next look: within one tick of the clock it could be replaced and keep its stamp."""


class RelayError(Exception):
    """What came from the other side is not what this side takes; nothing of it was written."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells whether a copy is the original: size in bytes and time of the last change in microseconds."""

    size: int
    time_us: int


Listing = dict[str, Stamp]


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What ``owner`` left for ``reader`` in one exchange folder: at the owner the originals, at the reader the copies.

    Attributes
    ----------
    root : Path
        The exchange folder.
    owner, reader : str
        Addresses.
    most_bytes : int
        What one party may leave here for another.
    """

    root: Path
    owner: str
    reader: str
    most_bytes: int = 16 * 2**30

    def __post_init__(self) -> None:
        for address in (self.owner, self.reader):
            if not ADDRESS.fullmatch(address) or ".." in address:
                raise RelayError(f"{address[:80]!r} is no address")
        if self.owner == self.reader:
            raise RelayError("nobody leaves something for themselves")

    def listing(self) -> Listing:
        """Return the files, by name below the owner's folder.

        Messages are listed before anything else, so that what a listed message refers to is listed too.
        """
        found: Listing = {}
        boxes = [f"to/{self.reader}/{box}" for box in ("inbox", "outbox")]
        for name, stamp in (*(item for box in boxes for item in self._below(box)), *self._below("")):
            found.setdefault(name, stamp)
        return found

    def read(self, name: str, stamp: Stamp) -> bytes | None:
        """Return a file, or None if it is gone or is not the one any more that was listed."""
        try:
            with self._path(name).open("rb") as stream:
                stat = os.fstat(stream.fileno())
                return stream.read() if _stamp(stat) == stamp else None
        except FileNotFoundError:
            return None

    def receive(self, listed: Listing, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files as they were listed at their owner, in their order, and remove copies whose originals are gone.

        Raises
        ------
        RelayError
            If a name leads elsewhere, a file is none of the listed ones, or all of it is too much.
        """
        if len(listed) > _MOST_FILES or sum(stamp.size for stamp in listed.values()) > self.most_bytes:
            raise RelayError(f"{self.owner} leaves more here than {self.most_bytes} bytes or {_MOST_FILES} files")
        taken = list(files)
        for name in listed:
            self._path(name)
        for name, data in taken:
            if name not in listed or listed[name].size != len(data):
                raise RelayError(f"{name[:200]!r} was not announced, or has another size")
        for name, data in taken:
            self._write(self._path(name), data, listed[name].time_us)
        for name in set(self.listing()) - set(listed):
            self._path(name).unlink(missing_ok=True)

    def keep_versions(self, said: str) -> None:
        """Keep what the owner says of its software, which every party reads of every other one, signed by the owner."""
        data, path = said.encode(), self._path(VERSIONS)
        if not path.exists() or path.read_bytes() != data:
            self._write(path, data, time.time_ns() // 1000)

    def versions(self) -> str | None:
        """Return what the owner says of its software, or None if it says nothing or too much."""
        try:
            with self._path(VERSIONS).open("rb") as stream:
                data = stream.read(MOST_VERSIONS_BYTES + 1)
            return data.decode() if len(data) <= MOST_VERSIONS_BYTES else None
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def _below(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        """Give the files below a folder of the owner, without what is for somebody else."""
        for_reader = f"to/{self.reader}"
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._base / here) as entries:
                for entry in entries:
                    name = f"{here}/{entry.name}" if here else entry.name
                    if not _is_name(name) or (here == "to" and name != for_reader):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            yield name, _stamp(entry.stat(follow_symlinks=False))

    def _write(self, path: Path, data: bytes, time_us: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            os.utime(temporary, ns=(time_us * 1000, time_us * 1000))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _path(self, name: str) -> Path:
        if not _is_name(name) or (name.startswith("to/") and not name.startswith(f"to/{self.reader}/")):
            raise RelayError(f"{name[:200]!r} is no name of a file from {self.owner} to {self.reader}")
        path = self._base / name
        if any(folder.is_symlink() for folder in (path, *path.parents[: name.count("/") + 1])):
            raise RelayError(f"{name[:200]!r} leads over a symbolic link")
        return path

    @property
    def _base(self) -> Path:
        return self.root / self.owner


def missing(listed: Listing, held: Listing) -> list[str]:
    """Return the names of which ``held`` has no copy, in the order to send them: messages last, oldest first.

    A message refers to other files; who reads it finds them.
    """
    now_us = time.time_ns() // 1000
    names = (n for n, stamp in listed.items() if held.get(n) != stamp and abs(now_us - stamp.time_us) > _SETTLED_US)
    return sorted(names, key=lambda name: (_NUMBERED.fullmatch(name) is not None, name))


def is_news(name: str) -> bool:
    """Say whether somebody waits for a file; progress and receipts may come with the next one."""
    return _QUIET.fullmatch(name) is None


def is_answer(name: str) -> bool:
    """Say whether a file is a message from a domain."""
    return _NUMBERED.fullmatch(name) is not None and "/outbox/" in name


def listing_as_json(listing: Mapping[str, Stamp]) -> list[list[Any]]:
    """Return a listing as it travels: name, size and time of each file."""
    return [[name, stamp.size, stamp.time_us] for name, stamp in listing.items()]


def listing_from_json(value: Any) -> Listing:
    """Return a listing that the other side sent.

    Raises
    ------
    RelayError
        If it is none.
    """
    listing: Listing = {}
    if not isinstance(value, list) or len(value) > _MOST_FILES:
        raise RelayError("a listing is no list, or too long")
    for item in value:
        if not isinstance(item, list) or [type(part) for part in item] != [str, int, int] or min(item[1:]) < 0:
            raise RelayError("an entry of a listing is not a name, a size and a time")
        listing[item[0]] = Stamp(size=item[1], time_us=item[2])
    return listing


def _stamp(stat: os.stat_result) -> Stamp:
    return Stamp(size=stat.st_size, time_us=stat.st_mtime_ns // 1000)


def _is_name(name: str) -> bool:
    parts: Sequence[str] = name.split("/")
    return len(parts) <= _MOST_PARTS and all(_PART.fullmatch(part) and ".." not in part for part in parts)
