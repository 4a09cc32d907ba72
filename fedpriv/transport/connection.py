"""syft over a :class:`Store`: the methods that syft calls on a connection, in the place of its own Google Drive one.

Every party writes only below its own prefix, so that plain bucket rules can enforce it::

    <me>/version.json                         the syft version
    <me>/identity.json                        public keys, self-signed; trusted only by pinned fingerprint
    <me>/to/<peer>/peer                       "I want to be your peer"
    <me>/to/<peer>/bundle.json                my end-to-end encryption bundle
    <me>/to/<peer>/inbox/<seq>                proposed files, encrypted to the peer
    <me>/to/<peer>/outbox/<seq>               accepted files and results, encrypted to the peer
    <me>/to/<peer>/blobs/<name>               sealed updates and aggregates, encrypted to the peer
    <me>/to/<peer>/parts/<name>.<digest>/<n>  parts of large ones, each encrypted to the peer
    <me>/to/<peer>/status                     progress, encrypted to the peer; overwritten
    <me>/to/<peer>/taken.json                 how far I took the peer's box, signed
    <me>/to/<peer>/changed.json               which of the peer's blobs are not as it left them
    <me>/collections/<prefix>/<tag>--<hash>/  mock side of a dataset

Sequence numbers are the sender's own counter, so no wall clock decides what is new, and whoever waits for the next
message knows its name: one request says that there is none, two fetch it.
"""

from __future__ import annotations

import bisect
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, PrivateAttr
from syft.sync.connections.base_connection import ConnectionConfig, FileCollection, SyftboxPlatformConnection
from syft.sync.version.version_info import VersionInfo

from fedpriv.errors import TransportError, UntrustedError
from fedpriv.files import parse_json, read_json, write_json
from fedpriv.transport.journal import Journal
from fedpriv.transport.messages import MAX_MESSAGE_BYTES, Address, Box
from fedpriv.transport.prekeys import checked_bundle
from fedpriv.transport.store import Store
from fedpriv.transport.taken import MAX_TAKEN_BYTES, MOST_MESSAGES, Taken, hinted_number, read_taken

MAX_CONTROL_BYTES = 1 * 2**20
MAX_COLLECTION_FILE_BYTES = 16 * 2**20
_SEQUENCE_DIGITS = 12
_LIST_SECONDS = 10.0
"""How often a box is listed for messages after one that never came: a number is lost when a put fails or a kill.

What a listing showed is gone through whole, however many gaps there are: else each thing that somebody puts between
two messages would cost its reader this long.
"""
_MOST_IN_A_BOX = 20_000
"""Things in a peer's box: over so many, what lies behind a gap is not looked for, and nobody else waits for it."""
_TIDY_SECONDS = 10.0
"""So long at a time is deleted in one box: others wait, and somebody may have put any number of things there."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a peer left in a box.

    Attributes
    ----------
    address, key : Address, str
        Where it lies, and its name on the store.
    envelope : bytes or None
        The encrypted message; None if it cannot be used.
    refusal : str
        Why not.
    """

    address: Address
    key: str
    envelope: bytes | None
    refusal: str = ""

    @property
    def number(self) -> int:
        """The sender's count of it."""
        return self.address.number


class StoreConnection(SyftboxPlatformConnection):
    """One party's view of the store. Shared between threads; its own state is the peers file and the journal.

    Parameters
    ----------
    config : StoreConnectionConfig
        Who we are, which store, and the folder on our own disk for the peers file.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    _store: Store = PrivateAttr()
    _journal: Journal = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _listed: dict[str, tuple[float, list[int]]] = PrivateAttr(default_factory=dict)
    _counted: set[tuple[str, Box]] = PrivateAttr(default_factory=set)

    @classmethod
    def from_config(cls, config: ConnectionConfig) -> StoreConnection:
        connection = cls(config=config)
        connection._store = Store.from_url(connection._settings.store_url)
        connection._journal = Journal(connection._settings.state_folder / "journal.db")
        return connection

    @property
    def _settings(self) -> StoreConnectionConfig:
        if not isinstance(self.config, StoreConnectionConfig):
            raise TransportError("This connection has no store")
        return self.config

    @property
    def store(self) -> Store:
        return self._store

    @property
    def journal(self) -> Journal:
        """What this party sent and took."""
        return self._journal

    def key(self, peer: str, *rest: str) -> str:
        """Return the name of what we leave for ``peer``."""
        return "/".join((self._settings.email, "to", peer, *rest))

    def key_from(self, peer: str, *rest: str) -> str:
        """Return the name of what ``peer`` left for us."""
        return "/".join((peer, "to", self._settings.email, *rest))

    # -- identity and peers ----------------------------------------------------------------------------------

    def get_authenticated_email(self) -> str:
        return self._settings.email

    def add_peer(self, peer_email: str) -> None:
        self._store.put(self.key(peer_email, "peer"), b"peer\n")

    def get_peer_requests(self) -> list[str]:
        decided = {
            email for email, entry in self._get_peers_json().items() if entry["state"] in ("accepted", "rejected")
        }
        # Nothing is listed: what others put beside the parties' folders is nothing to us.
        asking = (email for email in self._settings.pins if email not in decided)
        return [email for email in asking if self._store.exists(self.key_from(email, "peer"))]

    def _get_peers_json(self, force_download: bool = False) -> dict[str, Any]:
        path = self._settings.state_folder / "peers.json"
        return read_json(path) if path.exists() else {}

    def _update_peer_state(
        self, peer_email: str, state: str, public_encryption_bundle: dict[str, Any] | None = None
    ) -> None:
        with self._lock:
            peers = self._get_peers_json()
            entry = peers.setdefault(peer_email, {})
            entry["state"] = state
            if public_encryption_bundle is not None:
                entry["public_encryption_bundle"] = public_encryption_bundle
            write_json(self._settings.state_folder / "peers.json", peers)

    # -- versions and end-to-end encryption ------------------------------------------------------------------

    def write_version_file(self, version_info: VersionInfo) -> None:
        self._store.put(f"{self._settings.email}/version.json", version_info.to_json().encode())

    def read_own_version_file(self) -> VersionInfo | None:
        return self._read_version(self._settings.email)

    def read_peer_version_file(self, peer_email: str) -> VersionInfo | None:
        return self._read_version(peer_email)

    def share_version_file_with_peer(self, peer_email: str) -> None:
        """Nothing to do: whoever can read the store can read our version."""

    def _read_version(self, email: str) -> VersionInfo | None:
        """Return what syft of a party says of itself; None, as where it says nothing, for what is no such thing.

        Nothing depends on it: who understands whom is asked of :mod:`fedpriv.study.versions`.
        """
        try:
            data = self._store.get(f"{email}/version.json", max_bytes=MAX_CONTROL_BYTES)
            return None if data is None else VersionInfo.from_json(data.decode("utf-8", errors="replace"))
        except (UntrustedError, ValueError):
            return None

    def write_encryption_bundle(self, peer_email: str, bundle_json: str) -> None:
        self._store.put(self.key(peer_email, "bundle.json"), bundle_json.encode())

    def share_encryption_bundles_folder(self, peer_email: str) -> None:
        """Nothing to do: the bundle is public and pinned by fingerprint."""

    def read_peer_encryption_bundle(self, peer_email: str) -> str | None:
        """Return the peer's bundle for syft, which looks at all peers at once; None also where it is not the peer's.

        Who of them it is, and why, :meth:`peer_bundle` says: one peer's keys keep no other one from being met.
        """
        try:
            return self.peer_bundle(peer_email)
        except UntrustedError:
            return None

    def peer_bundle(self, peer_email: str) -> str | None:
        """Return the peer's bundle if it holds the pinned identity key, never one of anybody else or an older one.

        Raises
        ------
        SignatureError
            As :func:`checked_bundle`.
        """
        data = self._store.get(self.key_from(peer_email, "bundle.json"), max_bytes=MAX_CONTROL_BYTES)
        if data is None:
            return None
        message = parse_json(data, source=f"the encryption bundle of {peer_email}", max_bytes=MAX_CONTROL_BYTES)
        pin, newest = self._settings.pins.get(peer_email, ""), self._journal.number(f"generation/{peer_email}")
        _, generation = checked_bundle(message, email=peer_email, pin=pin, newest=newest)
        if generation > newest:
            self._journal.set({f"generation/{peer_email}": generation})
        return data.decode("utf-8")

    # -- messages --------------------------------------------------------------------------------------------

    def watcher_send_raw_bytes_to_inbox(self, recipient: str, filename: str, data: bytes) -> None:
        self.put_message(self.next_address(recipient, "inbox"), data)

    def owner_write_raw_bytes_to_outbox(self, recipient: str, filename: str, data: bytes) -> None:
        self.put_message(self.next_address(recipient, "outbox"), data)

    def messages_from(self, peer: str, box: Box, *, after: int) -> Iterator[Message]:
        """Give the messages that ``peer`` left for us after number ``after``, oldest first.

        Parameters
        ----------
        box : str
            ``"inbox"`` for proposed files (we are the owner), ``"outbox"`` for results (we are the watcher).
        """
        while after + 1 < MOST_MESSAGES:
            message = self._message(peer, box, after + 1)
            while message is None:
                later = self._first_after(peer, box, after)
                if later is None:
                    return
                message = self._message(peer, box, later)
                if message is None:  # its sender took it away since the listing, or the listing is not right
                    self._listed[self.key_from(peer, box)][1].remove(later)
            yield message
            after = message.number

    def _message(self, peer: str, box: Box, number: int) -> Message | None:
        key = self.key_from(peer, box, _numbered(number))
        address = Address(sender=peer, recipient=self._settings.email, box=box, number=number)
        try:
            envelope = self._store.get(key, max_bytes=MAX_MESSAGE_BYTES)
        except UntrustedError as error:  # it is too large
            return Message(address=address, key=key, envelope=None, refusal=error.what)
        return None if envelope is None else Message(address=address, key=key, envelope=envelope)

    def _first_after(self, peer: str, box: str, after: int) -> int | None:
        """Return the first number after a gap; at most one listing in ``_LIST_SECONDS``, the first one at once."""
        folder, now = self.key_from(peer, box), time.monotonic()
        listed_s, numbers = self._listed.get(folder, (-_LIST_SECONDS, []))
        place = bisect.bisect_right(numbers, after)
        if place == len(numbers) and now - listed_s >= _LIST_SECONDS:
            self._listed[folder] = now, []  # also where there is too much
            found = self._store.entries(folder, most=_MOST_IN_A_BOX)
            numbers = [int(entry.name) for entry in found if _is_numbered(entry.name)]
            numbers = numbers[: bisect.bisect_left(numbers, MOST_MESSAGES)]  # one left over would end the listing
            self._listed[folder] = now, numbers
            place = bisect.bisect_right(numbers, after)
        return numbers[place] if place < len(numbers) else None

    def acknowledge(self, peer: str, word: bytes) -> None:
        """Leave for ``peer`` what :func:`fedpriv.transport.taken.taken_message` made."""
        self._store.put(self.key(peer, "taken.json"), word)

    def is_acknowledged(self, peer: str, word: bytes) -> bool:
        """Say whether this very word lies there for ``peer``."""
        return self._read_word(self.key(peer, "taken.json")) == word

    def watcher_get_outbox_file_metadatas(self, peer_email: str, since_timestamp: float | None) -> list[dict[str, Any]]:
        """Return what lies in a peer's outbox, for syft's own watcher; its "time" is the sender's count."""
        folder, since = self.key_from(peer_email, "outbox"), since_timestamp or 0.0
        names = [entry.name for entry in self._store.entries(folder) if _is_numbered(entry.name)]
        found = [{"file_id": f"{folder}/{name}", "file_name": name, "timestamp": float(name)} for name in names]
        return [entry for entry in found if entry["timestamp"] > since]

    def download_file(self, file_id: str) -> bytes:
        """Return a message that :meth:`watcher_get_outbox_file_metadatas` named."""
        data = self._store.get(file_id, max_bytes=MAX_MESSAGE_BYTES)
        if data is None:
            raise TransportError(f"{file_id} is gone from the store", todo="try again")
        return data

    def tidy(self, recipient: str, box: Box) -> dict[int, list[str]]:
        """Delete our messages that ``recipient`` said it took, and look whether the others are still there.

        What lies in our box and we did not put there is deleted, too.

        Returns
        -------
        dict[int, list[str]]
            What was noted (:func:`sent_fact`) of messages that are lost: the recipient says that it has not got them,
            or they are gone from the store, which was set back or emptied. Whoever sends it again forgets the note.
        """
        self._catch_up(recipient, box)
        noted = {int(n): text for n, text in self._journal.words(sent_fact(recipient, box)).items()}
        taken, folder = self._taken(recipient, box), self.key(recipient, box)
        lying = {int(entry.name) for entry in self._store.entries(folder) if _is_numbered(entry.name)}
        last = self._journal.number(f"sent/{recipient}/{box}")  # after the listing: another process may have sent more
        end = time.monotonic() + _TIDY_SECONDS
        for number in sorted(lying):
            if time.monotonic() > end:
                break
            if taken.lacks(number) or taken.holds(number) or number > last:
                self._store.delete(f"{folder}/{_numbered(number)}")
        if taken.number > last:  # an older journal counted anew, and the store hid the word: nobody looked at any of it
            self._journal.raise_to(f"sent/{recipient}/{box}", taken.number)
            taken = Taken(missing=((1, taken.number),))
        self._journal.forget(sent_fact(recipient, box, number) for number in noted if taken.holds(number))
        return {
            number: json.loads(text)
            for number, text in sorted(noted.items())
            if taken.lacks(number) or (not taken.holds(number) and number not in lying)
        }

    def next_address(self, recipient: str, box: Box) -> Address:
        """Return where our next message to ``recipient`` will lie; no second one ever lies there."""
        self._catch_up(recipient, box)
        # The counter goes first: a number may be lost by a kill, but is never used twice.
        number = self._journal.count(f"sent/{recipient}/{box}")
        return Address(sender=self._settings.email, recipient=recipient, box=box, number=number)

    def put_message(self, address: Address, data: bytes) -> None:
        """Put the envelope of a message of ours where :meth:`next_address` said.

        Raises
        ------
        TransportError
            If it is too large, or the store refuses it.
        """
        if len(data) > MAX_MESSAGE_BYTES:
            raise TransportError(
                f"A message to {address.recipient} would be larger than {MAX_MESSAGE_BYTES} bytes",
                kept="It was not sent",
            )
        self._store.put(self.key(address.recipient, address.box, _numbered(address.number)), data)

    def _catch_up(self, recipient: str, box: Box) -> None:
        """Once a process: go on counting behind what the store knows, where our journal was lost or is an older one.

        Below what the recipient took nobody looks; what lies there is ours, until it is seen to be nobody's.
        """
        if (recipient, box) in self._counted:
            return
        counter, word = f"sent/{recipient}/{box}", self._word_of(recipient)
        names = (entry.name for entry in self._store.entries(self.key(recipient, box)) if _is_numbered(entry.name))
        # Whoever can write there can make the count begin anywhere below this, and never leave it without room.
        known = [number for number in map(int, names) if number < MOST_MESSAGES // 2]
        known.append(self._signed(word, recipient, box).number)
        if self._journal.number(counter) == 0:
            known.append(min(hinted_number(word, box), MOST_MESSAGES // 2))
        self._journal.raise_to(counter, max(known))
        self._counted.add((recipient, box))

    def _taken(self, peer: str, box: Box) -> Taken:
        """Return how far ``peer`` read a box of ours, as far as it signed that."""
        return self._signed(self._word_of(peer), peer, box)

    def _signed(self, word: bytes, peer: str, box: Box) -> Taken:
        me, pin = self._settings.email, self._settings.pins.get(peer, "")
        try:
            return read_taken(word, sender=me, recipient=peer, box=box, pin=pin)
        except UntrustedError:
            return Taken()

    def _word_of(self, peer: str) -> bytes:
        return self._read_word(self.key_from(peer, "taken.json"))

    def _read_word(self, key: str) -> bytes:
        try:
            return self._store.get(key, max_bytes=MAX_TAKEN_BYTES) or b"{}"
        except UntrustedError:  # it is too large, or no file
            return b"{}"

    # -- collections (the mock side of datasets) -------------------------------------------------------------

    def owner_create_collection_folder(self, prefix: str, tag: str, content_hash: str, owner_email: str) -> str:
        return f"{owner_email}/collections/{prefix}/{tag}--{content_hash}"

    def owner_upload_collection_files(self, prefix: str, tag: str, content_hash: str, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            self._store.put(f"{self._settings.email}/collections/{prefix}/{tag}--{content_hash}/{name}", data)

    def owner_tag_collection_as_any(self, prefix: str, tag: str, content_hash: str) -> None:
        """Nothing to do: mock data is for everyone who reaches the store."""

    def owner_share_collection(self, prefix: str, tag: str, content_hash: str, users: list[str]) -> None:
        """Nothing to do: mock data is for everyone who reaches the store."""

    def owner_list_all_collections_with_permissions(self, prefix: str) -> list[FileCollection]:
        return [
            FileCollection(folder_id=f"{prefix}/{tag}", tag=tag, content_hash=content_hash, has_any_permission=True)
            for tag, content_hash in self._collections_of(self._settings.email, prefix)
        ]

    def owner_delete_collection(self, prefix: str, tag: str) -> None:
        for found, content_hash in self._collections_of(self._settings.email, prefix):
            if found == tag:
                folder = f"{self._settings.email}/collections/{prefix}/{tag}--{content_hash}"
                for entry in self._store.entries(folder):
                    self._store.delete(f"{folder}/{entry.name}")

    def watcher_list_collections(self, prefix: str) -> list[dict[str, str]]:
        return [
            {"owner_email": email, "tag": tag, "content_hash": content_hash}
            for email in self._settings.pins
            for tag, content_hash in self._collections_of(email, prefix)
        ]

    def watcher_get_collection_file_metadatas(
        self, prefix: str, tag: str, content_hash: str, owner_email: str
    ) -> list[dict[str, str]]:
        folder = f"{owner_email}/collections/{prefix}/{tag}--{content_hash}"
        return [{"file_id": f"{folder}/{e.name}", "file_name": e.name} for e in self._store.entries(folder)]

    def watcher_download_collection_file(self, file_id: str) -> bytes:
        data = self._store.get(file_id, max_bytes=MAX_COLLECTION_FILE_BYTES)
        if data is None:
            raise TransportError(f"{file_id} is gone from the store", todo="try again")
        return data

    def _collections_of(self, email: str, prefix: str) -> list[tuple[str, str]]:
        names = self._store.names(f"{email}/collections/{prefix}")
        return [(tag, content_hash) for tag, _, content_hash in (n.rpartition("--") for n in names) if tag]

    def reset_caches(self) -> None:
        """Nothing is cached."""


class StoreConnectionConfig(ConnectionConfig):
    """Settings of a :class:`StoreConnection`.

    Attributes
    ----------
    email : str
        Our address, which is also our prefix on the store.
    store_url : str
        A folder or an fsspec URL.
    state_folder : Path
        A folder of ours, on our own disk, for the peers file and the counters: a store that could edit them would
        be a man in the middle.
    pins : dict[str, str]
        Peer address to its pinned transport key (hex). Whoever is not in it does not exist for us.
    """

    connection_type: ClassVar[type[SyftboxPlatformConnection]] = StoreConnection

    email: str
    store_url: str
    state_folder: Path
    pins: dict[str, str] = Field(default_factory=dict)


def sent_fact(recipient: str, box: Box, number: int | None = None) -> str:
    """Return the journal's name for what a message of ours brought, as a JSON list; without a number, its beginning."""
    return f"message/{recipient}/{box}/" + ("" if number is None else _numbered(number))


def _numbered(number: int) -> str:
    return f"{number:0{_SEQUENCE_DIGITS}d}"


def _is_numbered(name: str) -> bool:
    return len(name) == _SEQUENCE_DIGITS and name.isascii() and name.isdigit()
