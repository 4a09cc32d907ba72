"""What both roles' sessions share: a syft client over the store, with the calls that fedpriv needs of it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import yaml
from syft.sync.connections.connection_router import ConnectionRouter
from syft.sync.syftbox_manager import SyftboxManager, SyftboxManagerConfig
from syft.sync.sync.caches.datasite_owner_cache import DataSiteOwnerEventCacheConfig
from syft.sync.sync.caches.datasite_watcher_cache import DataSiteWatcherCacheConfig
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncerConfig
from syft.sync.sync.datasite_watcher_syncer import DatasiteWatcherSyncerConfig
from syft.sync.version.peer_manager import PeerManagerConfig
from syft_datasets.config import SyftBoxConfig
from syft_datasets.dataset_manager import SyftDatasetManager
from syft_job import SyftJobConfig
from syft_job.client import JobClient
from syft_job.models import JobState, JobSubmissionMetadata
from syft_rds.client import SyftRDSClient
from syft_rds.config import COLLECTION_SUBPATH, DATASET_COLLECTION_SPECS

from fedpriv.errors import ConfigError, HostKeyError, TransportError, UnreachableError, UntrustedError
from fedpriv.files import private_folder, sha256_hex
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.connection import VERSION_FILE, StoreConnection, StoreConnectionConfig
from fedpriv.transport.each_peer import EachPeer
from fedpriv.transport.owner_syncing import OwnerSyncer
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.quarantine import Quarantine
from fedpriv.transport.session_settings import SessionSettings
from fedpriv.transport.spool import Spool
from fedpriv.transport.syncing import Clock, remove_staging
from fedpriv.transport.watcher_syncing import WatcherSyncer

_LOOK_SECONDS = 0.01
"""How often the stamps of local folders are looked at while waiting; less often with more than so many peers."""

_CHEAP_PEERS = 16

STATE_FILE = "state.yaml"
"""Syft's record of a job, which a domain writes."""

_TEND_SECONDS = 30.0
"""How often keys, and the blobs that we sent, are looked at."""

_SHOWN_SECONDS = 60.0
"""How often it is looked whether what others read of us, such as our keys, still lies on the store."""

_TIDIED, _TIDIED_SECONDS = "tidied", 86_400
"""The journal's name for when what killed writers left was looked for, and how often it is, in seconds."""

_SETTLE_SECONDS = 0.003
"""From the first sign of a put, which creates a temporary file, until its rename is through."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep syft's prints off the terminal that belongs to our progress view."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _connection_config(settings: SessionSettings) -> StoreConnectionConfig:
    return StoreConnectionConfig(
        email=settings.email,
        store_url=settings.store_url,
        state_folder=private_folder(settings.folder / "transport"),
        pins=dict(settings.pins),
    )


def _manager_config(settings: SessionSettings, *, owner: bool) -> SyftboxManagerConfig:
    box = private_folder(settings.folder / "datasite")
    email, connections = settings.email, [_connection_config(settings)]
    collections = box / email / COLLECTION_SUBPATH
    return SyftboxManagerConfig(
        email=email,
        syftbox_folder=box,
        has_do_role=owner,
        has_ds_role=not owner,
        use_in_memory_cache=False,
        datasite_owner_syncer_config=DatasiteOwnerSyncerConfig(
            email=email,
            syftbox_folder=box,
            collections_folder=collections,
            collection_specs=DATASET_COLLECTION_SPECS,
            connection_configs=list(connections),
            cache_config=DataSiteOwnerEventCacheConfig(
                email=email, use_in_memory_cache=True, syftbox_folder=box, collections_folder=collections
            ),
        ),
        datasite_watcher_syncer_config=DatasiteWatcherSyncerConfig(
            email=email,
            syftbox_folder=box,
            connection_configs=list(connections),
            datasite_watcher_cache_config=DataSiteWatcherCacheConfig(
                email=email,
                use_in_memory_cache=False,
                syftbox_folder=box,
                collection_specs=DATASET_COLLECTION_SPECS,
                connection_configs=list(connections),
            ),
        ),
        peer_manager_config=PeerManagerConfig(
            email=email,
            syftbox_folder=box,
            connection_configs=list(connections),
            has_do_role=owner,
            has_ds_role=not owner,
            use_encryption=True,
            crypto_keys_path=settings.keys_path,
            skip_peer_on_patch_version_diff=False,
            force_ignore_peer_version=True,
            suppress_version_warnings=True,
            n_threads=2,
        ),
    )


class Session:
    """A party's syft client over our connection, with its identity and blobs."""

    _box: ClassVar[str]
    """Where peers leave messages for this role."""

    def __init__(self, settings: SessionSettings, *, owner: bool) -> None:
        self.settings = settings
        config = _manager_config(settings, owner=owner)
        remove_staging(config.syftbox_folder)
        with quiet():
            manager = SyftboxManager.from_config(config)
            if manager.peer_manager is None:
                raise ConfigError("This version of syft has no peer manager", todo="install the pinned one")
            peers = manager.peer_manager.peer_store = RenewedKeys.open(settings.email, settings.keys_path)
            self.connection = StoreConnection.from_config(_connection_config(settings))
            self._router = ConnectionRouter(connections=[self.connection], peer_store=peers)
            self._install(manager, config, peers, owner=owner)
            manager._set_peer_store(peers)
            jobs = SyftJobConfig(
                syftbox_folder=config.syftbox_folder, current_user_email=settings.email, has_do_role=owner
            )
            self.client = SyftRDSClient(
                sync_engine=manager,
                job_client=JobClient.from_config(jobs),
                dataset_manager=SyftDatasetManager.from_config(
                    SyftBoxConfig(syftbox_folder=config.syftbox_folder, email=settings.email)
                ),
            )
            self.client.peer_manager.connection_router = self._router
            self._require_known_store()
            self.client.peer_manager.write_own_version()
            self.connection.journal.set({self._met: 1})
        limit = settings.transport.upload_limit_mbit
        spool = Spool(settings.folder / "transport" / "spool")
        self.blobs = BlobChannel(self.connection, peers, spool=spool, upload_limit_mbit=limit)
        self._keys = peers
        self._tended_s: float | None = None
        self._shown = Clock(_SHOWN_SECONDS)
        self._not_put_back: set[str] = set()
        self._each_peer = EachPeer(settings.on_refusal)
        self._refresh_peers()

    def _install(
        self, manager: SyftboxManager, config: SyftboxManagerConfig, peers: RenewedKeys, *, owner: bool
    ) -> None:
        """Put our syncer in the place of syft's, before the client registers its callbacks on it."""
        quarantine = Quarantine(self.settings.folder / "quarantine", self.settings.on_refusal)
        self._syncer: OwnerSyncer | WatcherSyncer
        if owner:
            self._syncer = OwnerSyncer.from_config(config.datasite_owner_syncer_config)
            manager.datasite_owner_syncer = self._syncer
        else:
            self._syncer = WatcherSyncer.from_config(config.datasite_watcher_syncer_config)
            manager.datasite_watcher_syncer = self._syncer
        self._syncer.bind(self.connection, peers, quarantine)

    def _require_known_store(self) -> None:
        """Make no new store where there was one before: its folder is then a share that is not mounted.

        Raises
        ------
        UnreachableError
            If it is not there.
        """
        if self.connection.journal.number(self._met) and self.connection.store.is_gone():
            raise UnreachableError(
                f"The store {self.settings.store_url} is not there, and was when it was used last",
                kept="Everything local is kept, and no new store is made",
                todo="mount the share; if a new store is to begin there, make the folder",
            )

    @property
    def _met(self) -> str:
        """The journal's name for that this very store was reached before."""
        return f"met/{sha256_hex(self.settings.store_url.encode())[:16]}"

    def _refresh_peers(self) -> None:
        with quiet():
            self.client.load_peers(force_download=True)

    def _tend(self) -> None:
        """Renew our prekey when it is old, take those that peers renewed, and put back what the store lost of ours.

        Looks every half minute.
        """
        now = time.monotonic()
        if self._tended_s is not None and now - self._tended_s < _TEND_SECONDS:
            return
        self._tended_s = now
        self._keys.refresh()
        if self._shown.is_due(self.settings.email):
            self._show_public()
        self._each_peer.do(self._peers(), self._tend_to)
        self._remove_left()

    def _remove_left(self) -> None:
        """Remove, once a day, what killed writers of ours left on the store: it takes space, and is listed each time.

        What was written last is the store's clock.
        """
        journal, now = self.connection.journal, int(time.time())
        if abs(now - journal.number(_TIDIED)) >= _TIDIED_SECONDS:
            journal.set({_TIDIED: now})
            email = self.settings.email
            with contextlib.suppress(TransportError):  # nobody waits for it
                self.connection.store.remove_left(email, clock=f"{email}/{VERSION_FILE}")

    def _tend_to(self, email: str) -> None:
        mark = f"bundle/{email}"
        if self.connection.journal.number(mark) != self._keys.generation:
            self.connection.write_encryption_bundle(email, self._bundle())
            self.connection.journal.set({mark: self._keys.generation})
        elif self._shown.is_due(email):
            self._show(self.connection.key(email, "bundle.json"), self._bundle().encode())
        self._take_keys(email)
        self.blobs.send_lost(email)

    def _bundle(self) -> str:
        return json.dumps(self._keys.bundle_message())

    def _show_public(self) -> None:
        """Put what everybody reads of us where it does not lie as it should."""
        for name, data in self.settings.public.items():
            key = f"{self.settings.email}/{name}"
            self._put_back(key, functools.partial(self._show, key, data))

    def _put_back(self, what: str, put: Callable[[], None]) -> None:
        """Put back a thing of ours; where that is refused, it is told once, and nothing else waits for it."""
        try:
            put()
        except (UnreachableError, HostKeyError):
            raise
        except TransportError as error:
            if what not in self._not_put_back:
                self._not_put_back.add(what)
                self.settings.on_refusal(self.settings.email, error.what)
        else:
            self._not_put_back.discard(what)

    def _show(self, key: str, data: bytes) -> None:
        """Put what others read of us where it does not lie as it should.

        *Guarantee*: what is put is what we signed. *Assumption*: none about the store, which may show others anything.
        """
        try:
            lying = self.connection.store.get(key, max_bytes=len(data))
        except UntrustedError:  # it is larger, or no file
            lying = None
        if lying != data:
            self.connection.store.put(key, data)

    def _peers(self) -> list[str]:
        return [email for email in self.settings.pins if self.is_connected(email)]

    def _take_keys(self, email: str) -> None:
        """Use the newest keys of a peer that it left on the store.

        Raises
        ------
        UntrustedError
            If they are not the peer's; they are not used.
        """
        text = self.connection.peer_bundle(email)
        bundle = None if text is None else json.loads(text)["public_encryption_bundle"]
        held = self._keys.get_cached_peer(email)
        if bundle is not None and held is not None and bundle != held.public_encryption_bundle:
            self._keys.set_peer_bundle(email, bundle)
            state = self.connection._get_peers_json()[email]["state"]
            self.connection._update_peer_state(email, state, bundle)

    def news(self) -> tuple[int | None, ...]:
        """Return a mark of what peers have left for us; taken before a poll, it tells whether more came since."""
        stamp, key_from = self.connection.store.stamp, self.connection.key_from
        return tuple(stamp(key_from(email, self._box)) for email in self.settings.pins)

    def wait(self, mark: tuple[int | None, ...], seconds: float) -> None:
        """Sleep until there are other news than ``mark``, and at most so long; on stores that cannot tell, so long."""
        look = _LOOK_SECONDS * max(1.0, len(mark) / _CHEAP_PEERS) if any(m is not None for m in mark) else seconds
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, look))
            if self.news() != mark:
                time.sleep(min(left, _SETTLE_SECONDS))
                return

    def is_connected(self, email: str) -> bool:
        """Say whether ``email`` is an accepted peer whose encryption key we hold."""
        peers = self.client.peer_manager.peer_store
        return any(peer.email == email for peer in peers.approved_peers) and peers.has_peer_bundle(email)


def yaml_record(record: JobState | JobSubmissionMetadata) -> bytes:
    """Return one of syft's records as it writes them, by PyYAML's compiled half where there is one."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(record.disk_dict(), Dumper=dumper).encode()
