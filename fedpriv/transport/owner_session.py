"""A data owner's session: takes jobs of pinned researchers, and answers them."""

from __future__ import annotations

import bisect
import functools
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from syft.sync.file_utils import compute_file_hashes
from syft_datasets.dataset_manager import DATASET_COLLECTION_PREFIX
from syft_job.job_ref import JobRef, JobStateNotFoundError
from syft_job.models import JobState, JobStatus

from fedpriv.errors import ConfigError
from fedpriv.files import write_atomic
from fedpriv.transport.owner_syncing import OwnerSyncer
from fedpriv.transport.session import STATE_FILE, Session, quiet, yaml_record
from fedpriv.transport.session_settings import SessionSettings
from fedpriv.transport.syncing import CODE, Clock

_MOCK_SECONDS = 300.0
"""How often it is looked whether our mock data still lie on the store: all of them are read for it."""


class OwnerSession(Session):
    """A data owner's datasite."""

    _box = "inbox"

    def __init__(self, settings: SessionSettings) -> None:
        super().__init__(settings, owner=True)
        self._jobs: list[JobRef] | None = None
        self._mock_shown = Clock(_MOCK_SECONDS)

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
        """Make a pinned researcher our peer, if it asks to be.

        Raises
        ------
        UntrustedError
            If what lies there as its keys is not its own.
        """
        self._refresh_peers()
        manager = self.client.peer_manager
        requested = {peer.email for peer in manager.requested_by_peer_peers}
        if email in requested.union(peer.email for peer in manager.approved_peers):
            self.connection.peer_bundle(email)
        if email in requested:
            with quiet():
                self.client.approve_peer_request(email, verbose=False)

    def register_dataset(self, name: str, *, mock: Path, pointer: Path, summary: str) -> None:
        """Register a dataset once: the mock folder for outsiders, a pointer file in place of the private data.

        Of one that is registered, what the store lost of the mock side is put back as other things for everybody are.
        """
        with quiet():
            if any(dataset.name == name for dataset in self.client.dataset_manager.get_all(self.settings.email)):
                return
            self._clear_dataset(name)
            self.client.create_dataset(
                name, mock_path=mock, private_path=pointer, summary=summary, users="any", sync=False
            )

    def _clear_dataset(self, name: str) -> None:
        """Remove what a kill or a full disk left of a registering: syft would refuse for ever to write over it."""
        storage = self.client.dataset_manager.storage
        for version in storage.target_protocol_versions_for_peers(None):
            ref = storage.new_dataset_ref(name, version)
            for folder in (storage.public_dataset_dir(ref), storage.private_dataset_dir(ref)):
                shutil.rmtree(folder, ignore_errors=True)

    def _show_public(self) -> None:
        super()._show_public()
        if not self._mock_shown.is_due(self.settings.email):
            return
        with quiet():
            datasets = self.client.dataset_manager.get_all(self.settings.email)
        for dataset in datasets:
            files = self.client._collect_mock_files(dataset)
            self._put_back(dataset.name, functools.partial(self._show_mock, dataset.name, files))

    def _show_mock(self, name: str, files: Mapping[str, bytes]) -> None:
        """Put the mock files of a dataset where they are missing, or have another size: a look costs one listing."""
        content, me, store = compute_file_hashes(dict(files)), self.settings.email, self.connection.store
        folder = self.connection.owner_create_collection_folder(DATASET_COLLECTION_PREFIX, name, content, me)
        lying = {entry.name: entry.size_bytes for entry in store.entries(folder)}
        missing = {name: data for name, data in files.items() if lying.get(name) != len(data)}
        self.connection.owner_upload_collection_files(DATASET_COLLECTION_PREFIX, name, content, missing)

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
        write_atomic(review / STATE_FILE, yaml_record(state))
        self._owner_syncer.touched(job.ds_email, review)


def _by_name(ref: JobRef) -> tuple[str, str]:
    return ref.job_name, ref.ds_email
