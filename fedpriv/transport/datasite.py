"""Sessions: one party's syft client over the store, with the calls that fedpriv needs of it."""

from __future__ import annotations

import bisect
import contextlib
import io
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
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
from syft_job.job_ref import JobRef, JobStateNotFoundError
from syft_job.models import JobState, JobStatus, JobSubmissionMetadata
from syft_rds.client import SyftRDSClient
from syft_rds.config import COLLECTION_SUBPATH, DATASET_COLLECTION_SPECS

from fedpriv.errors import ConfigError, FedprivError, UnreachableError, UntrustedError
from fedpriv.files import private_folder, sha256_hex, write_atomic, write_folder
from fedpriv.study.yaml_text import load_yaml
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.connection import StoreConnection, StoreConnectionConfig
from fedpriv.transport.each_peer import EachPeer
from fedpriv.transport.owner_syncing import OwnerSyncer
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.quarantine import Quarantine
from fedpriv.transport.session_settings import SessionSettings
from fedpriv.transport.spool import Spool
from fedpriv.transport.syncing import CODE, remove_staging, staging_folder
from fedpriv.transport.watcher_syncing import WatcherSyncer

_LOOK_SECONDS = 0.01
"""How often the stamps of local folders are looked at while waiting; less often with more than so many peers."""

_CHEAP_PEERS = 16

_MOST_REFUSED = 100
"""Refusals that a researcher's session keeps until somebody asks for them."""

_STATE = "state.yaml"
_MOST_STATE_BYTES, _MOST_REASON = 16 * 1024, 2000
"""Of syft's record of a job, which a domain writes and a researcher reads at every look; and of what it says of why."""

_RUN = b"#!/bin/sh\n# fedpriv domains run no script: they read what is asked from the files in code/.\nexit 1\n"
"""A file that syft's own client looks for in a job."""

_TEND_SECONDS = 30.0
"""How often keys, and the blobs that we sent, are looked at."""

_SETTLE_SECONDS = 0.003
"""From the first sign of a put, which creates a temporary file, until its rename is through."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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


class _Session:
    """What both roles share: a syft client over our connection, identities and blobs."""

    _box: ClassVar[str]
    """Where peers leave messages for this role."""

    def __init__(self, settings: SessionSettings, *, owner: bool) -> None:
        self.settings = settings
        config = _manager_config(settings, owner=owner)
        remove_staging(config.syftbox_folder)
        with _quiet():
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
        with _quiet():
            self.client.load_peers(force_download=True)

    def _tend(self) -> None:
        """Renew our prekey when it is old, take those that peers renewed, and send again which blobs the store lost.

        Looks every half minute.
        """
        now = time.monotonic()
        if self._tended_s is not None and now - self._tended_s < _TEND_SECONDS:
            return
        self._tended_s = now
        self._keys.refresh()
        self._each_peer.do(self._peers(), self._tend_to)

    def _tend_to(self, email: str) -> None:
        mark = f"bundle/{email}"
        if self.connection.journal.number(mark) != self._keys.generation:
            self.connection.write_encryption_bundle(email, json.dumps(self._keys.bundle_message()))
            self.connection.journal.set({mark: self._keys.generation})
        self.blobs.send_lost(email)
        self._take_keys(email)

    def _peers(self) -> list[str]:
        return [email for email in self.settings.pins if self.is_connected(email)]

    def _take_keys(self, email: str) -> None:
        """Use the newest keys of a peer that it left on the store.

        Raises
        ------
        UntrustedError
            If they are not the peer's; they are not used.
        """
        text = self.connection.read_peer_encryption_bundle(email)
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


class OwnerSession(_Session):
    """A data owner's datasite."""

    _box = "inbox"

    def __init__(self, settings: SessionSettings) -> None:
        super().__init__(settings, owner=True)
        self._jobs: list[JobRef] | None = None

    def poll(self) -> None:
        """Take what pinned researchers sent, and send them what changed for them."""
        self.receive()
        self.publish()

    def receive(self) -> None:
        """Take what pinned researchers sent; where nothing came, one request to the store for each."""
        self._each_peer.do(list(self.settings.pins), self._receive_from)

    def _receive_from(self, email: str) -> None:
        if not self.is_connected(email):
            self._connect(email)
        if self.is_connected(email):
            self._owner_syncer.receive(email)

    def publish(self) -> None:
        """Send pinned researchers what changed for them; where nothing did, the store is not asked."""
        self._tend()
        for step in (self._owner_syncer.publish, self._owner_syncer.acknowledge):
            self._each_peer.do(self._peers(), step)

    @property
    def _owner_syncer(self) -> OwnerSyncer:
        if not isinstance(self._syncer, OwnerSyncer):
            raise ConfigError("This session is no data owner's")
        return self._syncer

    def _connect(self, email: str) -> None:
        """Make a pinned researcher our peer, if it asks to be."""
        self._refresh_peers()
        requested = {peer.email for peer in self.client.peer_manager.requested_by_peer_peers}
        if email in requested:
            with _quiet():
                self.client.approve_peer_request(email, verbose=False)

    def register_dataset(self, name: str, *, mock: Path, pointer: Path, summary: str) -> None:
        """Register a dataset once: the mock folder for outsiders, a pointer file in place of the private data."""
        with _quiet():
            if any(dataset.name == name for dataset in self.client.dataset_manager.get_all(self.settings.email)):
                return
            self.client.create_dataset(
                name, mock_path=mock, private_path=pointer, summary=summary, users="any", sync=False
            )

    def jobs(self) -> list[JobRef]:
        """Return the jobs that pinned researchers submitted, in name order."""
        taken = self._owner_syncer.taken()
        if self._jobs is None:  # all of them once; later on, those that came since
            refs = self.client.job_client.manager.iter_submission_refs(self.settings.email)
            self._jobs = sorted((ref for ref in refs if ref.ds_email in self.settings.pins), key=_by_name)
        else:
            for ref in taken:
                bisect.insort(self._jobs, ref, key=_by_name)
        return self._jobs

    def code_folder(self, job: JobRef) -> Path:
        """Return the folder with the job's files; they never change after arrival."""
        return self.client.job_client.manager.submission_dir(job) / CODE

    def status(self, job: JobRef) -> JobStatus:
        try:
            return self.client.job_client.manager.read_state(job).status
        except JobStateNotFoundError:
            return JobStatus.RECEIVED

    def answer(self, job: JobRef, status: JobStatus, files: Mapping[str, bytes], *, reason: str = "") -> None:
        """Write ``files`` and the job's state where the researcher sees them after the next poll.

        Files go first: a state that says done always has its results beside it.
        """
        review = self.client.job_client.manager.review_dir(job)
        for name, data in files.items():
            write_atomic(review / "outputs" / name, data)
        now, me = datetime.now(UTC), self.settings.email
        state = JobState(status=status, received_at=now, review_reason=reason or None)
        if status is JobStatus.REJECTED:
            state.rejected_by, state.rejected_at = me, now
        elif status in (JobStatus.DONE, JobStatus.FAILED, JobStatus.APPROVED):
            state.approved_by, state.approved_at, state.approval_method = me, now, "fedpriv"
        if status in (JobStatus.DONE, JobStatus.FAILED):
            state.completed_at, state.return_code = now, int(status is JobStatus.FAILED)
        write_atomic(review / _STATE, _yaml(state))
        self._owner_syncer.touched(job.ds_email, review)


class ResearcherSession(_Session):
    """A researcher's side of several datasites."""

    _box = "outbox"

    def __init__(self, settings: SessionSettings) -> None:
        self._refused: deque[tuple[str, str]] = deque(maxlen=_MOST_REFUSED)

        def keep(peer: str, reason: str) -> None:
            self._refused.append((peer, reason))
            settings.on_refusal(peer, reason)

        super().__init__(replace(settings, on_refusal=keep), owner=False)

    def refused(self) -> list[tuple[str, str]]:
        """Return what was refused since this was asked last: whose it was, and why."""
        return [self._refused.popleft() for _ in range(len(self._refused))]

    def connect(self, email: str) -> bool:
        """Ask the domain ``email`` to be our peer; return whether it agreed already."""
        if not self.is_connected(email):
            with _quiet():
                self.client.add_peer(email, verbose=False, sync=False)
            self._refresh_peers()
        return self.is_connected(email)

    def poll(self) -> None:
        """Take what connected domains sent."""
        self._tend()
        self._each_peer.do(self._peers(), lambda email: self._syncer.sync_down([email]))  # type: ignore[union-attr]

    def fetch_datasets(self, email: str) -> None:
        """Fetch the mock side of the datasets of a domain."""
        with _quiet():
            self._syncer.sync_datasets(email)  # type: ignore[union-attr]

    def submit(self, email: str, job_name: str, code: Mapping[str, bytes], *, entrypoint: str) -> None:
        """Submit a job of readable text files, by name, to a domain; submitting the same again changes nothing there.

        It is laid out as syft's own client does it, whose tools can list it on both sides.
        """
        manager = self.client.job_client.manager
        manager.validate_job_name(job_name)
        description = JobSubmissionMetadata(
            name=job_name,
            submitted_by=self.settings.email,
            datasite_email=email,
            submitted_at=datetime.now(UTC),
            entrypoint=entrypoint,
            files=sorted(code),
            is_folder_submission=True,
        )
        files = {f"{CODE}/{name}": data for name, data in code.items()}
        files |= {"config.yaml": _yaml(description), "run.sh": _RUN}
        folder = manager.submission_dir(manager.new_submission_ref(email, job_name))
        if not folder.exists():  # a record for people: what is sent is given to us each time
            write_folder(folder, files, staging=staging_folder(self._syncer.syftbox_folder), durable=False)
        self._syncer.push_job(email, folder, files)  # type: ignore[union-attr]

    def output(self, email: str, job_name: str, name: str) -> bytes | None:
        """Return a file that the domain published for a job, or None."""
        manager = self.client.job_client.manager
        path = manager.review_dir(manager.new_submission_ref(email, job_name)) / "outputs" / name
        if not path.exists():
            return None
        if not path.is_file():
            raise UntrustedError(f"{email} sent a folder for {name}", kept="It was not used")
        return path.read_bytes()

    def refusal(self, email: str, job_name: str) -> str | None:
        """Return why a domain rejected a job as a whole, or None if it did not."""
        manager = self.client.job_client.manager
        path = manager.review_dir(manager.new_submission_ref(email, job_name)) / _STATE
        if not path.exists():
            return None
        try:
            with path.open("rb") as stream:
                text = stream.read(_MOST_STATE_BYTES + 1).decode("utf-8")
            if len(text) > _MOST_STATE_BYTES:
                raise UntrustedError("It is too long")
            state = load_yaml(text, source=_STATE)  # not by syft: a few bytes of aliases take all memory there
        except (OSError, UnicodeDecodeError, FedprivError) as error:
            raise UntrustedError(f"{email} sent a job state that cannot be read", kept="It was not used") from error
        if state.get("status") != JobStatus.REJECTED.value:
            return None
        return str(state.get("review_reason") or "no reason given")[:_MOST_REASON]


def _by_name(ref: JobRef) -> tuple[str, str]:
    return ref.job_name, ref.ds_email


def _yaml(record: JobState | JobSubmissionMetadata) -> bytes:
    """Return one of syft's records as it writes them, by PyYAML's compiled half where there is one."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(record.disk_dict(), Dumper=dumper).encode()
