"""The data owner's side of syft's messages: which jobs are taken, and what is published."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pydantic import PrivateAttr
from syft.sync.events.file_change_event import FileChangeEvent, FileChangeEventsMessage
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncer
from syft_job.job_ref import JobRef

from fedpriv.errors import UntrustedError
from fedpriv.files import sha256_hex, write_folder
from fedpriv.transport.backing_off import BackingOff
from fedpriv.transport.boxes import sent_fact
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.journal import Journal
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.quarantine import Quarantine
from fedpriv.transport.reading import BoxReader
from fedpriv.transport.said import MAX_FILES, Proposed, SaidFile, said
from fedpriv.transport.syncing import (
    AGAIN_SECONDS,
    CODE,
    INBOX,
    REVIEW,
    TIDY_SECONDS,
    Clock,
    Room,
    check_path,
    check_places,
    send_message,
    staging_folder,
)

_TICK_SECONDS = 3.0
"""Within which two changes of a file may have the same time; the longest step of a disk's times is two seconds."""


class OwnerSyncer(DatasiteOwnerSyncer):
    """The data owner's side."""

    _journal: Journal = PrivateAttr()
    _connection: StoreConnection = PrivateAttr()
    _peers: RenewedKeys = PrivateAttr()
    _digests: dict[Path, tuple[tuple[int, ...], float, str]] = PrivateAttr(default_factory=dict)
    _delivered: dict[str, dict[str, str]] = PrivateAttr(default_factory=dict)
    _touched: dict[str, set[Path]] = PrivateAttr(default_factory=dict)
    _room: Room = PrivateAttr(default_factory=Room)
    _taken: list[JobRef] = PrivateAttr(default_factory=list)
    _tidying: Clock = PrivateAttr(default_factory=lambda: Clock(TIDY_SECONDS))
    _again: BackingOff = PrivateAttr(default_factory=lambda: BackingOff(AGAIN_SECONDS))
    _reader: BoxReader = PrivateAttr()

    def taken(self) -> list[JobRef]:
        """Return the jobs that were taken since the start, or since this was asked last."""
        taken, self._taken = self._taken, []
        return taken

    def touched(self, peer: str, folder: Path) -> None:
        """Note that something was written for ``peer`` in a folder of its review folder."""
        if peer in self._touched:
            self._touched[peer].add(folder)

    def bind(self, connection: StoreConnection, peers: RenewedKeys, quarantine: Quarantine) -> None:
        """Give the syncer what it needs beyond syft's own configuration."""
        self._connection, self._peers, self._journal = connection, peers, connection.journal
        self._reader = BoxReader(connection, peers, quarantine, box="inbox", fact="taken")

    def sync(self, peer_emails: list[str], recompute_hashes: bool = True) -> None:
        for peer in peer_emails:
            self.receive(peer)
            self.publish(peer)
            self.acknowledge(peer)

    def receive(self, peer: str) -> None:
        """Take the jobs that ``peer`` sent."""
        self._reader.read(peer, lambda content: self._accept(peer, self._read(peer, content)))

    def acknowledge(self, peer: str) -> None:
        """Tell ``peer`` what it may delete, after everything else: nobody waits for it."""
        self._reader.acknowledge(peer)

    def _read(self, peer: str, content: bytes) -> Proposed:
        read = said(content, Proposed)
        if read.sender_email != peer:
            raise UntrustedError("A message claims another sender than the one who signed it", kept="It was not used")
        return read

    def _accept(self, peer: str, message: Proposed) -> None:
        """Write the one new job that a message brings, whole or not at all; the same code again changes nothing."""
        below = INBOX / peer / "v1"
        files: dict[PurePosixPath, bytes] = {}
        if not message.proposed_file_changes:
            raise UntrustedError("A message holds no files", kept="Nothing was written")
        for change in message.proposed_file_changes:
            path = check_path(change.path_in_datasite, below=below)
            files[path] = self._content(change)
        check_places(files)
        jobs = {path.parts[len(below.parts)] for path in files}
        if len(jobs) != 1 or any(len(path.parts) < len(below.parts) + 2 for path in files):
            raise UntrustedError("A message must bring exactly one job", kept="Nothing was written")
        self._write_job(below / jobs.pop(), files)

    def _content(self, change: SaidFile) -> bytes:
        data = change.data()
        if data is None or change.datasite_email != self.email:
            raise UntrustedError("A message deletes a file or is for another domain", kept="Nothing was changed")
        return data

    def _write_job(self, job: PurePosixPath, files: dict[PurePosixPath, bytes]) -> None:
        root = self.syftbox_folder / self.email
        target = root / job
        named = {path.relative_to(job).as_posix(): content for path, content in files.items()}
        if target.exists():
            paths = [path for path in (target / CODE).rglob("*") if path.is_file()]
            held = {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}
            # What lies beside the code is there for syft's own tools, with the time of its sending.
            if held != {name: content for name, content in named.items() if name.startswith(f"{CODE}/")}:
                raise UntrustedError(
                    f"The job {job.name} was changed after it was submitted", kept="The first version stands"
                )
            return
        with self._room.take(target.parent, {target / name: data for name, data in named.items()}, what="jobs"):
            write_folder(target, named, staging=staging_folder(self.syftbox_folder))
        name, version, peer = job.name, job.parent.name.removeprefix("v"), job.parent.parent.name
        self._taken.append(JobRef(datasite_email=self.email, ds_email=peer, job_name=name, protocol_version=version))

    def publish(self, peer: str) -> None:
        """Send ``peer`` every file of its review folder that was not delivered in its present form.

        All of them are looked at after a start and when the store lost something; else, those in folders that were
        :meth:`touched`.
        """
        if self._tidying.is_due(peer):
            self._tidy(peer)
        files = list(self._review_files(peer))
        if files:
            if peer not in self._delivered:
                self._delivered[peer] = self._journal.words(f"delivered/{peer}/")
            delivered = self._delivered[peer]
            changed = [(path, name) for path, name in files if delivered.get(name) != self._digest(path)]
            for first in range(0, len(changed), MAX_FILES):
                self._deliver(peer, changed[first : first + MAX_FILES])
        self._touched[peer] = set()

    def _tidy(self, peer: str) -> None:
        """Delete what ``peer`` took, and count as not delivered what the store lost, each file when it is its time."""
        lost = self._connection.boxes.tidy(peer, "outbox")
        due = {name for name in {n for names in lost.values() for n in names} if self._again.is_due(peer, name)}
        if due:
            left = {sent_fact(peer, "outbox", n): [f for f in names if f not in due] for n, names in lost.items()}
            sent = [fact for fact, names in left.items() if not names]
            self._journal.forget([*(f"delivered/{peer}/{name}" for name in due), *sent])
            self._journal.set({fact: json.dumps(names) for fact, names in left.items() if names})
            self._delivered.pop(peer, None)
            self._touched.pop(peer, None)

    def _deliver(self, peer: str, files: list[tuple[Path, str]]) -> None:
        events = [self._event(name, path.read_bytes()) for path, name in files]
        content = FileChangeEventsMessage(events=events).model_dump_json().encode()
        address = self._connection.boxes.next_address(peer, "outbox")
        noted = send_message(self._connection, self._peers, address, content, [name for _, name in files])
        digests = {str(event.path_in_datasite): event.new_hash or "" for event in events}
        self._journal.set(noted | {f"delivered/{peer}/{name}": digest for name, digest in digests.items()})
        self._delivered[peer] |= digests

    def _review_files(self, peer: str) -> Iterable[tuple[Path, str]]:
        root = self.syftbox_folder / self.email
        for folder in sorted(self._touched.get(peer, {root / REVIEW / peer})):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.name.startswith(".") and not path.is_symlink():
                    yield path, path.relative_to(root).as_posix()

    def _digest(self, path: Path) -> str:
        """Return a file's digest; it is read again when it was changed, or replaced by another one.

        Times alone do not tell: some disks count them in steps of two seconds.
        """
        stat = path.stat()
        facts = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
        known = self._digests.get(path)
        if known is None or known[0] != facts or known[1] < max(stat.st_mtime, stat.st_ctime) + _TICK_SECONDS:
            # The time before the reading: what is written later may have the same facts for as long as a step.
            known = (facts, time.time(), sha256_hex(path.read_bytes()))
            self._digests[path] = known
        return known[2]

    def _event(self, name: str, content: bytes) -> FileChangeEvent:
        now = time.time()
        return FileChangeEvent(
            id=uuid.uuid4(),
            path_in_datasite=Path(name),
            datasite_email=self.email,
            content=content.decode("utf-8"),
            new_hash=sha256_hex(content),
            submitted_timestamp=now,
            timestamp=now,
        )
