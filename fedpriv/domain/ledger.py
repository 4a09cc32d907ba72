"""The ledger: a domain's append-only, chained, signed record of what was asked, decided, run and sent.

A line is the canonical JSON of one :class:`Entry`. It holds the SHA-256 of the whole line before it, and a signature.
So one valid signature vouches for every byte in front of it, and verifying takes few signatures, however long the
ledger is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpriv.errors import UntrustedError
from fedpriv.files import PRIVATE_FILE, canonical_json, parse_json, private_folder, sha256_hex

_START = "0" * 64
_MAX_LINE = 1 * 2**20
_PIECE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes
    ----------
    number : int
        1 for the first entry, then one more each.
    time_s : float
        Seconds since the epoch on the domain's clock; for people only, the order is the number's.
    kind : str
        What happened, such as ``round.sealed``.
    once : str
        Empty, or a name that may stand in the ledger once: what it names is never done twice.
    facts : dict
        Digests, counts and decisions; never data, keys or notes.
    previous : str
        SHA-256 of the whole line before (64 zeros for the first).
    digest : str
        SHA-256 of all the above as canonical JSON.
    signature : str
        Ed25519 over the digest, URL-safe base64.
    """

    number: int
    time_s: float
    kind: str
    once: str
    facts: dict[str, Any]
    previous: str
    digest: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far somebody has read a ledger: its file, up to which byte, and how many entries that is."""

    inode: int = -1
    offset: int = 0
    number: int = 0


@dataclass(kw_only=True)
class _Read:
    """How far a ledger was read: its file, up to which byte, the last entry, and all names that stand once."""

    inode: int
    offset: int = 0
    number: int = 0
    line_digest: str = _START
    once: set[str] = field(default_factory=set)

    def take(self, data: bytes) -> None:
        """Read whole lines that follow."""
        for line in data.split(b"\n")[:-1]:
            entry = _entry(line, self.number + 1)
            self.number, self.line_digest = self.number + 1, sha256_hex(line)
            self.offset += len(line) + 1
            if entry.once:
                self.once.add(entry.once)


class Ledger:
    """Appends to and verifies one ledger file; several processes of the domain may append.

    *Guarantee*: a change of any byte, a removed, moved or repeated entry is found by :meth:`verify`, which names the
    first entry that is wrong.
    *Assumption*: the signing key is the domain's own. That the end was cut off is found by who kept the digest of a
    later entry, such as a privacy officer with an earlier export.
    """

    def __init__(self, path: Path, sign: Callable[[bytes], str], check: Callable[[bytes, str], bool]) -> None:
        self._path = path
        self._sign = sign
        self._check = check
        self._read = _Read(inode=-1)
        self.on_append: Callable[[int, str, dict[str, Any]], None] = lambda number, kind, facts: None
        """Called with number, kind and facts of each entry that this object appended, once it is on the disk."""
        private_folder(path.parent)

    def append(self, kind: str, *, once: str = "", **facts: Any) -> bool:
        """Append an entry and flush it to the disk; what others appended meanwhile is read, and nothing twice.

        Returns
        -------
        bool
            False if ``once`` stands in the ledger already; nothing was written then.

        Raises
        ------
        UntrustedError
            If the ledger holds a line that is no entry.
        """
        with self._locked() as descriptor:
            self._catch_up(descriptor)
            if once and once in self._read.once:
                return False
            body: dict[str, Any] = {
                "number": self._read.number + 1,
                "time_s": round(time.time(), 3),
                "kind": kind,
                "once": once,
                "facts": facts,
                "previous": self._read.line_digest,
            }
            digest = sha256_hex(canonical_json(body))
            line = canonical_json({**body, "digest": digest, "signature": self._sign(digest.encode())}) + b"\n"
            if os.write(descriptor, line) != len(line):  # the next one that reads it cuts the half line off
                raise OSError(errno.ENOSPC, f"{self._path.name} could not be written to its end")
            os.fsync(descriptor)
            self._catch_up(descriptor)
        self.on_append(body["number"], kind, facts)
        return True

    def entries(self) -> list[Entry]:
        """Return all whole entries, unverified."""
        return [_entry(line, number) for number, line in enumerate(self._lines(), 1)]

    def after(self, place: Place) -> tuple[list[Entry], Place]:
        """Return the whole entries behind a place, unverified, and the place behind them: reads only what is new.

        Where the file is another one or shorter than before, it is read from its beginning; the first number says so.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], Place()
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if status.st_ino != place.inode or status.st_size < place.offset:
                place = Place(inode=status.st_ino)
            stream.seek(place.offset)
            data = stream.read(status.st_size - place.offset)
        whole = data.rfind(b"\n") + 1
        entries = [_entry(line, place.number + n) for n, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]
        return entries, Place(inode=place.inode, offset=place.offset + whole, number=place.number + len(entries))

    def has(self, once: str) -> bool:
        """Say whether what ``once`` names was recorded."""
        with self._locked() as descriptor:
            self._catch_up(descriptor)
            return once in self._read.once

    def verify(self, *, holds: str = "") -> int:
        """Check every entry and return how many there are; see :meth:`verified`."""
        return len(self.verified(holds=holds))

    def verified(self, *, holds: str = "") -> list[Entry]:
        """Check every entry and return those that were checked.

        Parameters
        ----------
        holds : str, optional
            The digest of an entry that must be there, from an earlier look: finds an end that was cut off.

        Raises
        ------
        UntrustedError
            Naming the first entry that was changed, removed or moved, or saying that ``holds`` is missing.
        """
        lines = self._lines()
        entries, broken = _chained(lines)
        forged = self._first_forged(entries)
        wrong = forged or broken
        if wrong:
            raise UntrustedError(
                f"Entry {wrong} of the ledger was changed, removed or moved",
                kept=f"The {wrong - 1} entries before it are intact",
                todo="compare with your backup and tell your privacy officer",
            )
        if holds and not any(entry.digest == holds for entry in entries):
            raise UntrustedError(
                f"The ledger has {len(entries)} intact entries, but not the one with the digest {holds[:16]}",
                kept="What is there was not changed",
                todo="its end was cut off, or the digest is of another ledger: compare with your backup",
            )
        return entries

    def _first_forged(self, entries: Sequence[Entry]) -> int:
        """Return the number of the first entry in a whole chain whose signature is wrong, or 0.

        A valid signature vouches for the lines before, so signatures are valid up to some entry and none behind it is.
        """

        def is_signed(number: int) -> bool:
            entry = entries[number - 1]
            return self._check(entry.digest.encode(), entry.signature)

        if not entries or is_signed(len(entries)):
            return 0
        signed, forged = 0, len(entries)
        while forged - signed > 1:
            middle = (signed + forged) // 2
            signed, forged = (middle, forged) if is_signed(middle) else (signed, middle)
        return forged

    def _lines(self) -> list[bytes]:
        data = self._path.read_bytes() if self._path.exists() else b""
        return data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _catch_up(self, descriptor: int) -> None:
        """Read what was appended since the last time; cut off a last line that a kill left half written."""
        status = os.fstat(descriptor)
        if status.st_ino != self._read.inode or status.st_size < self._read.offset:
            self._read = _Read(inode=status.st_ino)  # another file, such as one from a backup
        begin = self._read.offset
        pieces = [
            os.pread(descriptor, min(_PIECE_BYTES, status.st_size - start), start)
            for start in range(begin, status.st_size, _PIECE_BYTES)
        ]
        data = b"".join(pieces)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(descriptor, begin + whole)
        self._read.take(data[:whole])


def _entry(line: bytes, number: int) -> Entry:
    """Return the entry of a line.

    Raises
    ------
    UntrustedError
        If it is none.
    """
    value = parse_json(line, source=f"entry {number} of the ledger", max_bytes=_MAX_LINE)
    if not isinstance(value, dict) or set(value) != set(Entry.__dataclass_fields__):
        raise UntrustedError(f"Entry {number} of the ledger is not one of ours", todo="compare with your backup")
    return Entry(**value)


def _chained(lines: Sequence[bytes]) -> tuple[list[Entry], int]:
    """Return the entries up to the first that does not fit to the one before it, and the number of that one or 0."""
    entries: list[Entry] = []
    previous = _START
    for number, line in enumerate(lines, 1):
        try:
            entry = _entry(line, number)
        except UntrustedError:
            return entries, number
        value = dict(entry.__dict__)
        spelled = canonical_json(value) == line
        body = {name: value[name] for name in value if name not in ("digest", "signature")}
        fits = (entry.number, entry.previous, entry.digest) == (number, previous, sha256_hex(canonical_json(body)))
        if not (spelled and fits):
            return entries, number
        entries.append(entry)
        previous = sha256_hex(line)
    return entries, 0


def as_text(entry: Entry) -> str:
    """Return an entry as one line for a terminal."""
    facts = ", ".join(f"{key}={json.dumps(value)[:80]}" for key, value in entry.facts.items())
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_s))
    return f"{entry.number:>5}  {clock}  {entry.kind:<20} {facts}"
