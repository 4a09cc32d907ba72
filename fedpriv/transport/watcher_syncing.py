"""The researcher's side of syft's messages: which results are taken, and how jobs are submitted."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import PrivateAttr
from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage
from syft.sync.sync.datasite_watcher_syncer import DatasiteWatcherSyncer

from fedpriv.errors import SignatureError, TransportError, UntrustedError
from fedpriv.files import write_atomic
from fedpriv.transport.backing_off import BackingOff
from fedpriv.transport.boxes import sent_fact
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.journal import Journal
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.quarantine import Quarantine
from fedpriv.transport.reading import BoxReader
from fedpriv.transport.said import Changed, said
from fedpriv.transport.syncing import (
    AGAIN_SECONDS,
    REVIEW,
    TIDY_SECONDS,
    Clock,
    Room,
    blocks,
    check_path,
    check_places,
    send_message,
)

MAX_MOCK_BYTES = 256 * 2**20
"""Of the mock sides of all datasets of one domain, each file counted in whole blocks."""
_ACKNOWLEDGE_SECONDS = 5.0


class WatcherSyncer(DatasiteWatcherSyncer):
    """The researcher's side."""

    _journal: Journal = PrivateAttr()
    _connection: StoreConnection = PrivateAttr()
    _peers: RenewedKeys = PrivateAttr()
    _room: Room = PrivateAttr(default_factory=Room)
    _tidying: Clock = PrivateAttr(default_factory=lambda: Clock(TIDY_SECONDS))
    _acknowledging: Clock = PrivateAttr(default_factory=lambda: Clock(_ACKNOWLEDGE_SECONDS))
    _again: BackingOff = PrivateAttr(default_factory=lambda: BackingOff(AGAIN_SECONDS))
    _reader: BoxReader = PrivateAttr()

    def bind(self, connection: StoreConnection, peers: RenewedKeys, quarantine: Quarantine) -> None:
        """Give the syncer what it needs beyond syft's own configuration."""
        self._connection, self._peers, self._journal = connection, peers, connection.journal
        self._reader = BoxReader(connection, peers, quarantine, box="outbox", fact="seen")

    def sync_down(self, peer_emails: list[str]) -> None:
        for peer in peer_emails:
            self._reader.read(peer, functools.partial(self._accept, peer))
            if self._acknowledging.is_due(peer):  # now and then: nobody waits for it
                self._reader.acknowledge(peer)
            if self._tidying.is_due(peer):
                self.tidy(peer)

    def tidy(self, peer: str) -> None:
        """Delete what ``peer`` took, and send it the jobs again that the store lost, each when it is its time."""
        root = self.syftbox_folder / peer
        for number, names in self._connection.boxes.tidy(peer, "inbox").items():
            if not all(self._again.is_due(peer, name) for name in names):  # one job, as we send them
                continue
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
        """Fetch the mock side of the datasets that ``peer`` shows.

        Raises
        ------
        UntrustedError
            If it is larger than ``MAX_MOCK_BYTES``: syft would hold all of it in memory before it writes any.
        """
        fetched, lock = 0, threading.Lock()

        def download(key: str) -> bytes:
            nonlocal fetched
            data = self._connection.watcher_download_collection_file(key)
            with lock:
                fetched += blocks(len(data))
            if fetched > MAX_MOCK_BYTES:
                raise UntrustedError(
                    f"The mock data of {peer} takes more than {MAX_MOCK_BYTES // 2**20} MiB",
                    kept="None of it was taken",
                    todo="ask the domain what it shows, or who else can write to its place on the store",
                )
            try:
                return self._peers.decrypt_dataset_if_needed(peer, data)
            except Exception as error:  # syft's native module raises plain exceptions of many kinds
                raise SignatureError(f"Mock data is not from {peer} or not for us", kept="None was taken") from error

        self.datasite_watcher_cache.sync_down_collections_parallel(peer, self._executor, download)

    def _accept(self, peer: str, content: bytes) -> None:
        read = said(content, Changed)
        below = REVIEW / self.email
        writes: dict[PurePosixPath, bytes] = {}
        for event in read.events:
            data = event.data()
            if data is None or event.datasite_email != peer:
                raise UntrustedError(
                    "A message speaks for another datasite or deletes a file", kept="Nothing was changed"
                )
            writes[check_path(event.path_in_datasite, below=below)] = data
        check_places(writes)
        datasite = self.syftbox_folder / peer
        for path in writes:
            files_above = any((datasite / parent).is_file() for parent in path.parents)
            if files_above or (datasite / path).is_dir():
                raise UntrustedError("A file would lie where a folder is, or below a file", kept="Nothing was written")
        files = {datasite / path: data for path, data in writes.items()}
        with self._room.take(datasite / below, files, what="results"):
            for path, data in files.items():
                write_atomic(path, data)

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
        address = self._connection.boxes.next_address(recipient, "inbox")
        brings = [job.relative_to(root).as_posix()]
        self._journal.set(
            send_message(self._connection, self._peers, address, message.model_dump_json().encode(), brings)
        )


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
