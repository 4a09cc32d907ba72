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

How boxes are numbered, written and read is told in :mod:`fedpriv.transport.boxes`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, PrivateAttr
from syft.sync.connections.base_connection import ConnectionConfig, FileCollection, SyftboxPlatformConnection
from syft.sync.version.version_info import VersionInfo

from fedpriv.errors import TransportError, UntrustedError
from fedpriv.files import parse_json, read_json, write_json
from fedpriv.transport.boxes import Boxes, is_numbered, place_for
from fedpriv.transport.journal import Journal
from fedpriv.transport.messages import MAX_MESSAGE_BYTES
from fedpriv.transport.prekeys import checked_bundle
from fedpriv.transport.store import Store

MAX_CONTROL_BYTES = 1 * 2**20
MAX_COLLECTION_FILE_BYTES = 16 * 2**20
VERSION_FILE = "version.json"
"""Below each party's own prefix; put at each start."""


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
    _boxes: Boxes = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def from_config(cls, config: ConnectionConfig) -> StoreConnection:
        connection = cls(config=config)
        settings = connection._settings
        connection._store = Store.from_url(settings.store_url)
        connection._journal = Journal(settings.state_folder / "journal.db")
        connection._boxes = Boxes(connection._store, connection._journal, email=settings.email, pins=settings.pins)
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

    @property
    def boxes(self) -> Boxes:
        """Its messages, and those of its peers for it."""
        return self._boxes

    def key(self, peer: str, *rest: str) -> str:
        """Return the name of what we leave for ``peer``."""
        return place_for(self._settings.email, peer, *rest)

    def key_from(self, peer: str, *rest: str) -> str:
        """Return the name of what ``peer`` left for us."""
        return place_for(peer, self._settings.email, *rest)

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
        self._store.put(f"{self._settings.email}/{VERSION_FILE}", version_info.to_json().encode())

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
            data = self._store.get(f"{email}/{VERSION_FILE}", max_bytes=MAX_CONTROL_BYTES)
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
        self._boxes.put_message(self._boxes.next_address(recipient, "inbox"), data)

    def owner_write_raw_bytes_to_outbox(self, recipient: str, filename: str, data: bytes) -> None:
        self._boxes.put_message(self._boxes.next_address(recipient, "outbox"), data)

    def watcher_get_outbox_file_metadatas(self, peer_email: str, since_timestamp: float | None) -> list[dict[str, Any]]:
        """Return what lies in a peer's outbox, for syft's own watcher; its "time" is the sender's count."""
        folder, since = self.key_from(peer_email, "outbox"), since_timestamp or 0.0
        names = [entry.name for entry in self._store.entries(folder) if is_numbered(entry.name)]
        found = [{"file_id": f"{folder}/{name}", "file_name": name, "timestamp": float(name)} for name in names]
        return [entry for entry in found if entry["timestamp"] > since]

    def download_file(self, file_id: str) -> bytes:
        """Return a message that :meth:`watcher_get_outbox_file_metadatas` named."""
        data = self._store.get(file_id, max_bytes=MAX_MESSAGE_BYTES)
        if data is None:
            raise TransportError(f"{file_id} is gone from the store", todo="try again")
        return data

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
