"""The ledger: a domain's append-only, hash-chained, signed record of what was asked, decided, run and sent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import UntrustedError
from fedpriv.files import PRIVATE_FILE, canonical_json, parse_json, private_folder, sha256_hex

_START = "0" * 64
_MAX_LINE = 1 * 2**20


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
        Digest of the entry before (64 zeros for the first).
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


class Ledger:
    """Appends to and verifies one ledger file; several processes of the domain may append.

    Guarantee: changing, removing or reordering entries, other than cutting the end off, is found by :meth:`verify`.
    Assumption: the signing key is the domain's own. Cutting the end off is found only by who knows a later digest
    (the researcher gets the newest digest with every result).
    """

    def __init__(self, path: Path, sign: Callable[[bytes], str], check: Callable[[bytes, str], bool]) -> None:
        self._path = path
        self._sign = sign
        self._check = check
        private_folder(path.parent)

    def append(self, kind: str, *, once: str = "", **facts: Any) -> bool:
        """Append an entry and flush it to the disk.

        Returns
        -------
        bool
            False if ``once`` stands in the ledger already; nothing was written then.
        """
        with self._locked() as descriptor:
            entries = self._repair(descriptor)
            if once and any(entry["once"] == once for entry in entries):
                return False
            last = entries[-1] if entries else None
            body: dict[str, Any] = {
                "number": last["number"] + 1 if last else 1,
                "time_s": round(time.time(), 3),
                "kind": kind,
                "once": once,
                "facts": facts,
                "previous": last["digest"] if last else _START,
            }
            digest = sha256_hex(canonical_json(body))
            line = canonical_json({**body, "digest": digest, "signature": self._sign(digest.encode())}) + b"\n"
            os.write(descriptor, line)
            os.fsync(descriptor)
            return True

    def entries(self) -> list[Entry]:
        """Return all whole entries, unverified."""
        data = self._path.read_bytes() if self._path.exists() else b""
        return [Entry(**value) for value in self._parse(data)]

    def has(self, once: str) -> bool:
        """Say whether what ``once`` names was recorded."""
        return any(entry.once == once for entry in self.entries())

    def verify(self) -> int:
        """Check every entry and return how many there are.

        Raises
        ------
        UntrustedError
            Naming the first entry that was changed, removed or reordered.
        """
        previous, number = _START, 0
        for number, entry in enumerate(self.entries(), start=1):
            body = {k: v for k, v in entry.__dict__.items() if k not in ("digest", "signature")}
            good = (
                entry.number == number
                and entry.previous == previous
                and entry.digest == sha256_hex(canonical_json(body))
                and self._check(entry.digest.encode(), entry.signature)
            )
            if not good:
                raise UntrustedError(
                    f"Entry {number} of the ledger was changed, removed or moved",
                    kept=f"The {number - 1} entries before it are intact",
                    todo="compare with your backup and tell your privacy officer",
                )
            previous = entry.digest
        return number

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _repair(self, descriptor: int) -> list[dict[str, Any]]:
        """Return the entries, after cutting off a last line that a kill left half written."""
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(descriptor, whole)
        return self._parse(data[:whole])

    def _parse(self, data: bytes) -> list[dict[str, Any]]:
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        entries = []
        for number, line in enumerate(lines, start=1):
            value = parse_json(line, source=f"entry {number} of the ledger", max_bytes=_MAX_LINE)
            if not isinstance(value, dict) or set(value) != set(Entry.__dataclass_fields__):
                raise UntrustedError(
                    f"Entry {number} of the ledger is not one of ours", todo="compare with your backup"
                )
            entries.append(value)
        return entries


def as_text(entry: Entry) -> str:
    """Return an entry as one line for a terminal."""
    facts = ", ".join(f"{key}={json.dumps(value)[:80]}" for key, value in entry.facts.items())
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_s))
    return f"{entry.number:>5}  {clock}  {entry.kind:<20} {facts}"
