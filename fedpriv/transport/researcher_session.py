"""A researcher's session: submits jobs to datasites, and reads what they answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from syft_job.models import JobStatus, JobSubmissionMetadata

from fedpriv.errors import FedprivError, UntrustedError
from fedpriv.files import write_folder
from fedpriv.study.yaml_text import load_yaml
from fedpriv.transport.session import STATE_FILE, Session, quiet, yaml_record
from fedpriv.transport.session_settings import SessionSettings
from fedpriv.transport.syncing import CODE, staging_folder

_MOST_REFUSED = 100
"""Refusals that a researcher's session keeps until somebody asks for them."""

_MOST_STATE_BYTES, _MOST_REASON = 16 * 1024, 2000
"""Of syft's record of a job, which a domain writes and a researcher reads at every look; and of what it says of why."""

_RUN = b"#!/bin/sh\n# fedpriv domains run no script: they read what is asked from the files in code/.\nexit 1\n"
"""A file that syft's own client looks for in a job."""


class ResearcherSession(Session):
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
        """Ask the domain ``email`` to be our peer; return whether it agreed already.

        Raises
        ------
        UntrustedError
            If what lies there as its keys is not its own.
        """
        if not self.is_connected(email):
            with quiet():
                self.client.add_peer(email, verbose=False, sync=False)
            self._refresh_peers()
        if not self.is_connected(email):
            self.connection.peer_bundle(email)
        return self.is_connected(email)

    def poll(self) -> None:
        """Take what connected domains sent."""
        self._tend()
        self._each_peer.do(self._peers(), lambda email: self._syncer.sync_down([email]))  # type: ignore[union-attr]

    def fetch_datasets(self, email: str) -> None:
        """Fetch the mock side of the datasets of a domain."""
        with quiet():
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
        files |= {"config.yaml": yaml_record(description), "run.sh": _RUN}
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
        path = manager.review_dir(manager.new_submission_ref(email, job_name)) / STATE_FILE
        if not path.exists():
            return None
        try:
            with path.open("rb") as stream:
                text = stream.read(_MOST_STATE_BYTES + 1).decode("utf-8")
            if len(text) > _MOST_STATE_BYTES:
                raise UntrustedError("It is too long")
            state = load_yaml(text, source=STATE_FILE)  # not by syft: a few bytes of aliases take all memory there
        except (OSError, UnicodeDecodeError, FedprivError) as error:
            raise UntrustedError(f"{email} sent a job state that cannot be read", kept="It was not used") from error
        if state.get("status") != JobStatus.REJECTED.value:
            return None
        return str(state.get("review_reason") or "no reason given")[:_MOST_REASON]
