"""A store, looked at end to end: whether three hospitals can rely on it, and what to do where they cannot.

Everything is written below the asker's own prefix and removed again, but for one try to write below another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from fedpriv.errors import TransportError, UnreachableError
from fedpriv.transport.store import Store, checked_address, folder_of, is_missing

State = Literal["ok", "warning", "failed"]
_FOREIGN = "check-foreign"
_VERSIONS, _VERSION_BYTES = 8, 300_000
_LISTED = 5
_PIECE_MB = 4
"""Of one object, as of a part of a blob: a kind of store bounds what it reads at once."""
_PATIENCE_SECONDS = 10.0
_MUCH_CLOCK_SECONDS = 300.0
"""Clouds refuse requests that are signed a quarter of an hour off."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_RIGHTS = "give every party an account that writes below its own prefix only (docs/stores.md, Rights)"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What.
    state : {"ok", "warning", "failed"}
        ``failed``: studies do not work over this store. ``warning``: they do, and less well or less safely.
    found : str
        What there is, in words.
    todo : str
        The next step; empty if all is well.
    figures : dict of str to float
        What was measured, with its unit in the name.
    """

    name: str
    state: State
    found: str
    todo: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def check_store(
    url: str, *, prefix: str = "check", megabytes: int = 4, on_finding: Callable[[Finding], None] = lambda found: None
) -> list[Finding]:
    """Test a store as two parties use it; what cannot be reached or written ends it early.

    Parameters
    ----------
    url : str
        Its address.
    prefix : str
        Below which names are made: a party's address, where its account may write nowhere else.
    megabytes : int
        How much is sent and fetched to measure the line, in MB (10^6 bytes).
    on_finding : Callable[[Finding], None]
        Called with each finding as it is made.

    Raises
    ------
    ConfigError
        If the address cannot be used.
    """
    findings: list[Finding] = []

    def note(found: Finding) -> Finding:
        findings.append(found)
        on_finding(found)
        return found

    address = checked_address(url)
    try:
        if is_missing(address):  # opening it would make it: a typing error, or a share that is away
            note(_no_folder(is_here=folder_of(address) is not None))
            return findings
        writer, reader = Store.from_url(url), Store.from_url(url)
        check = _Check(writer, reader, f"{prefix}/check-{uuid.uuid4().hex[:12]}")
        note(check.reach())
    except TransportError as error:
        note(Finding(name="reachable", state="failed", found=error.what, todo=error.todo or "check the address"))
        return findings
    with check.cleaned(note):
        if note(check.write_and_read()).state == "failed":
            return findings
        note(_guarded("listing", check.listing))
        note(_guarded("replacing", check.replacing))
        note(_guarded("deleting", check.deleting))
        note(_guarded("clock", check.clock))
        note(_guarded("throughput", lambda: check.throughput(megabytes)))
        note(_guarded("other prefixes", check.foreign))
    return findings


def _no_folder(*, is_here: bool) -> Finding:
    """Return what is found where the address's folder is not there."""
    words, todo = "there is no such folder on the server", "correct the path in the address, or make the folder there"
    if is_here:
        words, todo = "there is no such folder; is the share mounted?", "mount it, correct the path, or make the folder"
    return Finding(name="reachable", state="failed", found=words, todo=todo)


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    """Look at one thing; what the store says no to is a finding too."""
    try:
        return look()
    except TransportError as error:
        return Finding(name=name, state="failed", found=error.what, todo=error.todo or "run the check again")


def _is_full(error: BaseException | None) -> bool:
    """Say whether a store refused because there is no room: by the system's number, or in a server's words."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _NO_ROOM or "disk is full" in str(error)):
            return True
        error = error.__cause__
    return False


class _Check:
    """What is looked at, one thing a method; names are made below ``base`` and noted for removal."""

    def __init__(self, writer: Store, reader: Store, base: str) -> None:
        self._writer, self._reader, self._base = writer, reader, base
        self._made: list[str] = []

    @contextlib.contextmanager
    def cleaned(self, note: Callable[[Finding], Finding]) -> Iterator[None]:
        """Remove whatever was made, at the end and after any error."""
        try:
            yield
        finally:
            left = []
            for key in dict.fromkeys(self._made):
                try:
                    self._writer.delete(key)
                except TransportError:
                    left.append(key)
            folders = {key.rpartition("/")[0] for key in self._made}
            for folder in sorted(folders, key=len, reverse=True):
                with contextlib.suppress(TransportError):
                    self._writer.remove_folder(folder)
            if left:
                words = f"{len(left)} objects of this check are left, such as {left[0]}"
                note(Finding(name="cleaning", state="warning", found=words, todo="remove them by hand"))

    def _put(self, name: str, data: bytes) -> str:
        key = f"{self._base}-{name}"
        self._made.append(key)
        self._writer.put(key, data)
        return key

    def reach(self) -> Finding:
        """Ask for something that is not there, a few times."""
        times = []
        for _ in range(5):
            started = time.perf_counter()
            self._reader.exists(f"{self._base}-none")
            times.append(time.perf_counter() - started)
        first, usual = times[0], sorted(times)[len(times) // 2]
        words = f"it answers within {1000 * usual:.1f} ms ({1000 * first:.0f} ms the first time)"
        figures = {"round_trip_ms": round(1000 * usual, 3), "first_round_trip_ms": round(1000 * first, 3)}
        return Finding(name="reachable", state="ok", found=words, figures=figures)

    def write_and_read(self) -> Finding:
        """Put a little and read it as another party would."""
        name, data = "writing and reading", os.urandom(1000)
        try:
            started = time.perf_counter()
            key = self._put("small", data)
            taken = time.perf_counter() - started
            got = self._reader.get(key, max_bytes=len(data))
        except TransportError as error:
            self._made.clear()
            prefix = self._base.partition("/")[0]
            todo = f"let this account write and read below {prefix}/, or name another prefix with --email"
            if _is_full(error):
                todo = "its disk is full, or the account's share of it is used up: make room there"
            return Finding(name=name, state="failed", found=error.what, todo=todo)
        if got != data:
            words = "what was written is not there a moment later" if got is None else "other bytes came back"
            return Finding(name=name, state="failed", found=words, todo="use another store")
        words = f"a small object is written in {1000 * taken:.1f} ms, and comes back as it was"
        return Finding(name=name, state="ok", found=words, figures={"small_put_ms": round(1000 * taken, 3)})

    def listing(self) -> Finding:
        """Put and remove a few names; a second reader lists them at once, or after how long."""
        name = "listing"
        keys = [self._put(f"listed-{number}", b"x") for number in range(_LISTED)]
        shown = self._until(lambda: set(keys) <= self._listed())
        for key in keys:
            self._writer.delete(key)
        gone = self._until(lambda: not set(keys) & self._listed())
        if shown is None or gone is None:
            what = "put" if shown is None else "removed"
            words = f"objects that were {what} are not seen to be so after {_PATIENCE_SECONDS:.0f} s"
            return Finding(name=name, state="failed", found=words, todo="switch off caches between here and the store")
        figures = {"listed_after_s": round(shown, 3), "gone_after_s": round(gone, 3)}
        if max(shown, gone) > 1.0:
            words = f"new objects are listed after {shown:.1f} s, and removed ones not any more after {gone:.1f} s"
            todo = "expect rounds to wait for it, or use a store whose listings are consistent"
            return Finding(name=name, state="warning", found=words, todo=todo, figures=figures)
        return Finding(
            name=name, state="ok", found="another reader sees at once what was put and removed", figures=figures
        )

    def replacing(self) -> Finding:
        """Replace an object while a second reader reads it: the old one or the new one, never half of one."""
        name = "replacing"
        versions = [bytes([number]) * (_VERSION_BYTES + number) for number in range(_VERSIONS)]
        key, seen, done = self._put("replaced", versions[0]), set(), threading.Event()
        known = {version: number for number, version in enumerate(versions)}
        failures: list[TransportError] = []

        def read() -> None:
            while not done.is_set() and not failures:
                try:
                    data = self._reader.get(key, max_bytes=2 * _VERSION_BYTES)
                    seen.add("none" if data is None else "whole" if data in known else "half")
                except TransportError as error:
                    failures.append(error)

        thread = threading.Thread(target=read, name="reader", daemon=True)
        thread.start()
        try:
            for version in versions[1:]:
                self._put("replaced", version)
        finally:
            done.set()
            thread.join()
        if failures:
            raise failures[0]
        if "half" in seen:
            todo = "use another store: parties would read half-written objects"
            return Finding(name=name, state="failed", found="a reader saw a half-written object", todo=todo)
        if "none" in seen:
            words = "while an object is replaced, a reader may see none for a moment"
            todo = "nothing: parties ask again; a server that replaces in one step has no such moments"
            return Finding(name=name, state="warning", found=words, todo=todo)
        return Finding(name=name, state="ok", found="a reader sees the old object or the new one, whole")

    def deleting(self) -> Finding:
        """Remove an object; a second reader does not get it any more."""
        key = self._put("deleted", b"x")
        self._writer.delete(key)
        gone = self._until(lambda: self._reader.get(key, max_bytes=10) is None)
        if gone is None:
            todo = "let this account delete below its own prefix, and keep no versions that are still read"
            return Finding(name="deleting", state="failed", found="a removed object can still be read", todo=todo)
        return Finding(name="deleting", state="ok", found="a removed object is gone")

    def clock(self) -> Finding:
        """Compare the store's clock with ours, by when it says that an object was written."""
        before = time.time()
        key = self._put("clock", b"x")
        after = time.time()
        entry = self._reader.look(key)
        if entry is None or entry.modified_s is None:
            return Finding(name="clock", state="ok", found="it does not say what time it is; nothing depends on it")
        apart = max(before - 1.0 - entry.modified_s, entry.modified_s - after - 1.0, 0.0)  # it may say whole seconds
        figures = {"clock_difference_s": round(apart, 1)}
        if apart > _MUCH_CLOCK_SECONDS:
            words = f"its clock and this machine's are {apart:.0f} s apart"
            todo = "set this machine's clock (NTP): clouds refuse requests that are 15 minutes off"
            return Finding(name="clock", state="warning", found=words, todo=todo, figures=figures)
        return Finding(name="clock", state="ok", found=f"{apart:.0f} s apart from this machine's", figures=figures)

    def throughput(self, megabytes: int) -> Finding:
        """Send and fetch so many MB, in objects of as many as a study's have."""
        pieces = [os.urandom(min(_PIECE_MB, megabytes - done) * 10**6) for done in range(0, megabytes, _PIECE_MB)]
        started = time.perf_counter()
        keys = [self._put(f"large-{number}", piece) for number, piece in enumerate(pieces)]
        up = 8 * megabytes / (time.perf_counter() - started)
        started = time.perf_counter()
        got = [self._reader.get(key, max_bytes=_PIECE_MB * 10**6) for key in keys]
        down = 8 * megabytes / (time.perf_counter() - started)
        if got != pieces:
            todo = "use another store"
            return Finding(name="throughput", state="failed", found="other bytes came back than were sent", todo=todo)
        words = f"{up:.0f} Mbit/s up, {down:.0f} Mbit/s down"
        figures = {"up_mbit_per_s": round(up, 2), "down_mbit_per_s": round(down, 2)}
        return Finding(name="throughput", state="ok", found=words, figures=figures)

    def foreign(self) -> Finding:
        """Try to write below a prefix that is not ours, which the store should forbid."""
        name, key = "other prefixes", f"{_FOREIGN}/{self._base.rpartition('/')[2]}"
        try:
            self._writer.put(key, b"x")
        except UnreachableError:
            raise
        except TransportError:
            return Finding(name=name, state="ok", found="this account cannot write below another party's prefix")
        self._made.append(key)
        words = (
            "this account can write below other parties' prefixes: it could delete what they send, and read none of it"
        )
        return Finding(name=name, state="warning", found=words, todo=_RIGHTS)

    def _listed(self) -> set[str]:
        folder = self._base.rpartition("/")[0]
        return {f"{folder}/{entry.name}" for entry in self._reader.entries(folder)}

    def _until(self, is_so: Callable[[], bool]) -> float | None:
        """Return after how many seconds something is so; None if it is not in time."""
        started = time.monotonic()
        while not is_so():
            if time.monotonic() - started > _PATIENCE_SECONDS:
                return None
            time.sleep(0.2)
        return time.monotonic() - started
