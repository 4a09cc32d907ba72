"""How files cross between datasites: syft's messages, our rules.

syft's own syncers trust what peers send in ways that a hospital cannot (docs/syft.md lists them). These two keep syft's
message format and folders, and replace the handling:

* the owner takes new jobs only, only below the sender's own inbox folder, whole or not at all;
* what the owner publishes is compared with what was delivered, so a kill between two steps repeats, never loses;
* the watcher takes files only below the review folder that the sending domain keeps for it;
* a message that breaks a rule is put in quarantine with its reason, and the next one is handled.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pydantic import PrivateAttr, ValidationError
from syft.sync.events.file_change_event import FileChangeEvent, FileChangeEventsMessage
from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage
from syft.sync.peers.peer_store import PeerStore
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncer
from syft.sync.sync.datasite_watcher_syncer import DatasiteWatcherSyncer
from syft_job.job_ref import JobRef

from fedpriv.errors import SignatureError, TransportError, UntrustedError
from fedpriv.files import sha256_hex, write_atomic, write_folder
from fedpriv.transport.connection import Message, StoreConnection, sent_fact
from fedpriv.transport.journal import Journal
from fedpriv.transport.messages import Address, pack_message, unpack_message
from fedpriv.transport.quarantine import Quarantine

INBOX = PurePosixPath("app_data/job/inbox")
REVIEW = PurePosixPath("app_data/job/review")
CODE = "code"
"""The folder of a job with what was submitted."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_MAX_FILES = 64
_TIDY_SECONDS = 30.0
"""How often a box of ours is looked through: what was taken is deleted, and what the store lost is sent again."""
_ACKNOWLEDGE_SECONDS = 5.0

MAX_HELD_BYTES = 4 * 2**30
"""Of all jobs of one peer at a data owner, each file counted in whole blocks: a peer cannot fill the disk."""

_BLOCK_BYTES = 4096


def _open(peers: PeerStore, message: Message) -> bytes:
    """Return syft's message out of its envelope: signed by its sender, for us, and in its place."""
    if message.envelope is None:
        raise UntrustedError(message.refusal)
    peer = message.address.sender
    try:
        peers.verify_message(peer, message.envelope)
        data = peers.decrypt(peer, message.envelope)
    except Exception as error:  # syft's native module raises plain exceptions of many kinds
        raise SignatureError(f"A message is not from {peer} or not for us", kept="It was not used") from error
    return unpack_message(data, message.address)


def _send(
    connection: StoreConnection, peers: PeerStore, address: Address, content: bytes, brings: Sequence[str]
) -> dict[str, str]:
    """Put syft's message where it is to lie, in an envelope that holds for there only; return what to note of it."""
    connection.put_message(address, peers.encrypt(address.recipient, pack_message(content, address)))
    return {sent_fact(address.recipient, address.box, address.number): json.dumps(brings)}


class _Clock:
    """Says of several peers when something is due again, the first time at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def is_due(self, peer: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(peer, -self._seconds) < self._seconds:
            return False
        self._last[peer] = now
        return True


def _check_path(path: str, *, below: PurePosixPath) -> PurePosixPath:
    checked = PurePosixPath(path)
    if checked.parts[: len(below.parts)] != below.parts or len(checked.parts) <= len(below.parts):
        raise UntrustedError("A file lies outside the folder that its sender may write", kept="Nothing was written")
    if not all(_NAME.fullmatch(part) for part in checked.parts[len(below.parts) :]):
        raise UntrustedError("A file has an unusual name", kept="Nothing was written")
    return checked


class OwnerSyncer(DatasiteOwnerSyncer):
    """The data owner's side."""

    _journal: Journal = PrivateAttr()
    _quarantine: Quarantine = PrivateAttr()
    _connection: StoreConnection = PrivateAttr()
    _peers: PeerStore = PrivateAttr()
    _digests: dict[Path, tuple[int, int, str]] = PrivateAttr(default_factory=dict)
    _delivered: dict[str, dict[str, str]] = PrivateAttr(default_factory=dict)
    _touched: dict[str, set[Path]] = PrivateAttr(default_factory=dict)
    _held: dict[Path, int] = PrivateAttr(default_factory=dict)
    _taken: list[JobRef] = PrivateAttr(default_factory=list)
    _tidying: _Clock = PrivateAttr(default_factory=lambda: _Clock(_TIDY_SECONDS))

    def taken(self) -> list[JobRef]:
        """Return the jobs that were taken since the start, or since this was asked last."""
        taken, self._taken = self._taken, []
        return taken

    def touched(self, peer: str, folder: Path) -> None:
        """Note that something was written for ``peer`` in a folder of its review folder."""
        if peer in self._touched:
            self._touched[peer].add(folder)

    def bind(self, connection: StoreConnection, peers: PeerStore, journal: Journal, quarantine: Quarantine) -> None:
        """Give the syncer what it needs beyond syft's own configuration."""
        self._connection, self._peers, self._journal, self._quarantine = connection, peers, journal, quarantine

    def sync(self, peer_emails: list[str], recompute_hashes: bool = True) -> None:
        for peer in peer_emails:
            self.receive(peer)
            self.publish(peer)
            self.acknowledge(peer)

    def receive(self, peer: str) -> None:
        """Take the jobs that ``peer`` sent."""
        last = self._journal.number(f"taken/{peer}")
        for message in self._connection.messages_from(peer, "inbox", after=last):
            try:
                self._accept(peer, self._read(peer, message))
            except UntrustedError as error:
                self._quarantine.add(peer, message.key, message.envelope, error.what)
            self._journal.set({f"taken/{peer}": message.number})

    def acknowledge(self, peer: str) -> None:
        """Tell ``peer`` what it may delete, after everything else: nobody waits for it."""
        taken = self._journal.number(f"taken/{peer}")
        if taken > self._journal.number(f"acknowledged/{peer}"):
            self._connection.acknowledge(peer, "inbox", taken)
            self._journal.set({f"acknowledged/{peer}": taken})

    def _read(self, peer: str, message: Message) -> ProposedFileChangesMessage:
        try:
            read = ProposedFileChangesMessage.model_validate_json(_open(self._peers, message))
        except ValidationError as error:
            raise UntrustedError("A message is not one of syft's", kept="It was not used") from error
        if read.sender_email != peer:
            raise UntrustedError("A message claims another sender than the one who signed it", kept="It was not used")
        return read

    def _accept(self, peer: str, message: ProposedFileChangesMessage) -> None:
        """Write the one new job that a message brings, whole or not at all; the same code again changes nothing."""
        below = INBOX / peer / "v1"
        files: dict[PurePosixPath, bytes] = {}
        if not 0 < len(message.proposed_file_changes) <= _MAX_FILES:
            raise UntrustedError("A message holds no files, or too many", kept="Nothing was written")
        for change in message.proposed_file_changes:
            path = _check_path(str(change.path_in_datasite), below=below)
            files[path] = self._content(change)
        jobs = {path.parts[len(below.parts)] for path in files}
        if len(jobs) != 1 or any(len(path.parts) < len(below.parts) + 2 for path in files):
            raise UntrustedError("A message must bring exactly one job", kept="Nothing was written")
        self._write_job(below / jobs.pop(), files)

    def _content(self, change: ProposedFileChange) -> bytes:
        if change.is_deleted or change.content is None or change.datasite_email != self.email:
            raise UntrustedError("A message deletes a file or is for another domain", kept="Nothing was changed")
        return change.content if isinstance(change.content, bytes) else change.content.encode()

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
        self._check_room(target.parent, named.values())
        write_folder(target, named, staging=staging_folder(self.syftbox_folder))
        name, version, peer = job.name, job.parent.name.removeprefix("v"), job.parent.parent.name
        self._taken.append(JobRef(datasite_email=self.email, ds_email=peer, job_name=name, protocol_version=version))

    def _check_room(self, jobs: Path, contents: Iterable[bytes]) -> None:
        """Count what a new job takes in the folder of a peer's jobs, of which all are counted once after a start."""
        if jobs not in self._held:
            self._held[jobs] = sum(_blocks(path.stat().st_size) for path in jobs.rglob("*") if path.is_file())
        more = sum(_blocks(len(content)) for content in contents)
        if self._held[jobs] + more > MAX_HELD_BYTES:
            raise UntrustedError(
                "The jobs of this peer take as much as one peer may",
                kept="The new one was not taken; all others stand",
                todo="move old jobs away, and ask the peer why there are so many",
            )
        self._held[jobs] += more

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
            for first in range(0, len(changed), _MAX_FILES):
                self._deliver(peer, changed[first : first + _MAX_FILES])
        self._touched[peer] = set()

    def _tidy(self, peer: str) -> None:
        """Delete what ``peer`` took, and count as not delivered what the store lost."""
        lost = self._connection.tidy(peer, "outbox")
        if lost:
            facts = [f"delivered/{peer}/{name}" for names in lost.values() for name in names]
            self._journal.forget([*facts, *(sent_fact(peer, "outbox", number) for number in lost)])
            self._delivered.pop(peer, None)
            self._touched.pop(peer, None)

    def _deliver(self, peer: str, files: list[tuple[Path, str]]) -> None:
        events = [self._event(name, path.read_bytes()) for path, name in files]
        content = FileChangeEventsMessage(events=events).model_dump_json().encode()
        address = self._connection.next_address(peer, "outbox")
        noted = _send(self._connection, self._peers, address, content, [name for _, name in files])
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
        stat = path.stat()
        known = self._digests.get(path)
        if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
            known = (stat.st_mtime_ns, stat.st_size, sha256_hex(path.read_bytes()))
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


class WatcherSyncer(DatasiteWatcherSyncer):
    """The researcher's side."""

    _journal: Journal = PrivateAttr()
    _quarantine: Quarantine = PrivateAttr()
    _connection: StoreConnection = PrivateAttr()
    _peers: PeerStore = PrivateAttr()
    _tidying: _Clock = PrivateAttr(default_factory=lambda: _Clock(_TIDY_SECONDS))
    _acknowledging: _Clock = PrivateAttr(default_factory=lambda: _Clock(_ACKNOWLEDGE_SECONDS))

    def bind(self, connection: StoreConnection, peers: PeerStore, journal: Journal, quarantine: Quarantine) -> None:
        """Give the syncer what it needs beyond syft's own configuration."""
        self._connection, self._peers, self._journal, self._quarantine = connection, peers, journal, quarantine

    def sync_down(self, peer_emails: list[str]) -> None:
        for peer in peer_emails:
            last = self._journal.number(f"seen/{peer}")
            for message in self._connection.messages_from(peer, "outbox", after=last):
                try:
                    self._accept(peer, message)
                except UntrustedError as error:
                    self._quarantine.add(peer, message.key, message.envelope, error.what)
                self._journal.set({f"seen/{peer}": message.number})
            self._acknowledge(peer)
            if self._tidying.is_due(peer):
                self.tidy(peer)

    def _acknowledge(self, peer: str) -> None:
        """Tell ``peer`` now and then what it may delete: nobody waits for it."""
        seen = self._journal.number(f"seen/{peer}")
        if seen > self._journal.number(f"acknowledged/{peer}") and self._acknowledging.is_due(peer):
            self._connection.acknowledge(peer, "outbox", seen)
            self._journal.set({f"acknowledged/{peer}": seen})

    def tidy(self, peer: str) -> None:
        """Delete what ``peer`` took, and send it the jobs again that the store lost."""
        root = self.syftbox_folder / peer
        for number, names in self._connection.tidy(peer, "inbox").items():
            for name in names:
                folder = root / name
                files = {
                    path.relative_to(folder).as_posix(): path.read_bytes()
                    for path in folder.rglob("*")
                    if path.is_file()
                }
                if files:
                    self.push_job(peer, folder, files)
            self._journal.forget([sent_fact(peer, "inbox", number)])

    def sync_datasets(self, peer: str) -> None:
        """Fetch the mock side of the datasets that ``peer`` shows."""
        self.datasite_watcher_cache.sync_down_collections_parallel(
            peer, self._executor, lambda key: self.download_collection_file_with_new_connection(key, peer)
        )

    def _accept(self, peer: str, message: Message) -> None:
        try:
            read = FileChangeEventsMessage.model_validate_json(_open(self._peers, message))
        except ValidationError as error:
            raise UntrustedError("A message is not one of syft's", kept="It was not used") from error
        below = REVIEW / self.email
        writes: dict[PurePosixPath, bytes] = {}
        for event in read.events[:_MAX_FILES]:
            if event.datasite_email != peer or event.is_deleted or event.content is None:
                raise UntrustedError(
                    "A message speaks for another datasite or deletes a file", kept="Nothing was changed"
                )
            path = _check_path(str(event.path_in_datasite), below=below)
            writes[path] = event.content if isinstance(event.content, bytes) else event.content.encode()
        for path, content in writes.items():
            write_atomic(self.syftbox_folder / peer / path, content)

    def push_job(self, recipient: str, job: Path, files: Mapping[str, bytes]) -> None:
        """Send the files of the job folder ``job`` (below our copy of the recipient's datasite) in one message."""
        root = self.syftbox_folder / recipient
        changes = [
            ProposedFileChange(
                datasite_email=recipient, path_in_datasite=(job / name).relative_to(root), content=_text(name, data)
            )
            for name, data in sorted(files.items())
        ]
        message = ProposedFileChangesMessage(sender_email=self.email, proposed_file_changes=changes)
        address = self._connection.next_address(recipient, "inbox")
        brings = [job.relative_to(root).as_posix()]
        self._journal.set(_send(self._connection, self._peers, address, message.model_dump_json().encode(), brings))


def _text(name: str, data: bytes) -> str:
    """Return a file that people are to read; syft would send bytes as something else than they are."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TransportError(
            f"{name} is not a text in UTF-8, and a data owner reads every file of a request",
            kept="Nothing was sent",
            todo="leave it out, or write it as text",
        ) from error


def _blocks(size: int) -> int:
    return -(-max(size, 1) // _BLOCK_BYTES) * _BLOCK_BYTES


def remove_staging(syftbox_folder: Path) -> None:
    """Forget jobs whose writing a kill interrupted; they were not acknowledged and come again."""
    shutil.rmtree(staging_folder(syftbox_folder), ignore_errors=True)


def staging_folder(syftbox_folder: Path) -> Path:
    """Return where jobs are written before they are put in their place."""
    return syftbox_folder / ".staging"
