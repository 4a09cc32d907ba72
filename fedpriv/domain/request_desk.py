"""Where requests come in and decisions go out, also those that a person makes in another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.domain.domain import Domain
from fedpriv.domain.policy import review
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.protection import sign
from fedpriv.study import CodeRequest
from fedpriv.training.recipe import stock_recipe
from fedpriv.transport import OwnerSession

MOST_UNDECIDED = 100
"""Requests of one researcher that wait for a data owner; each is read by people, and looked through before."""


def key_of(job: JobRef) -> tuple[str, str]:
    """Return who sent a job, and its name, which others can use, too."""
    return job.ds_email, job.job_name


@dataclass(kw_only=True)
class RequestDesk:
    """The requests that a running service has seen, each with the decision that its researcher was told last.

    Parameters
    ----------
    domain : Domain
        The opened domain.
    notify : Callable[[str], None]
        Called with one sentence for each thing that a person at the domain may want to see.
    """

    domain: Domain
    notify: Callable[[str], None]
    _told: dict[tuple[str, str], str] = field(default_factory=dict)
    _studies: dict[tuple[str, str], str] = field(default_factory=dict)

    def knows(self, job: JobRef) -> bool:
        """Say whether a job is a request that was received before."""
        return key_of(job) in self._studies

    def receive(self, job: JobRef, code: Path, *, refused: bool = False) -> None:
        """Keep a request, and decide about it as far as the policy does.

        Parameters
        ----------
        refused : bool
            Its researcher was told so before: it is not taken after all, when nobody waits for it any more.

        Raises
        ------
        RefusedError
            If too many of the researcher's wait for the data owner, or it was refused before.
        FedprivError
            If it is no valid request.
        """
        request = CodeRequest.from_folder(code)
        if request.plan.researcher.email != job.ds_email:
            raise UntrustedError(
                f"The plan's researcher is {request.plan.researcher.email}, not who sent it", kept="It was not kept"
            )
        if refused and not self.domain.requests.holds(request.study):
            raise RefusedError("The request was refused before", kept="It was not kept", todo="submit a new study")
        self._require_room(request, job.ds_email)
        if self.domain.requests.receive(request, job.ds_email):
            self.domain.ledger.append("request.received", study=request.study, researcher=job.ds_email)
            self.notify(f"request {request.study[:12]} from {job.ds_email}: {request.plan.title}")
        stored = self.domain.requests.get(request.study)
        if stored.decision.decision == "pending" and not stored.decision.checked:
            decision = review(
                self.domain.config,
                request,
                job.ds_email,
                fingerprint=self.domain.keys.fingerprint,
                stock=stock_recipe(),
            )
            self.domain.record_decision(decision)
            self.notify(f"request {request.study[:12]}: {decision.decision} ({decision.reason})")
        self._told[key_of(job)], self._studies[key_of(job)] = "", request.study

    def _require_room(self, request: CodeRequest, researcher: str) -> None:
        book = self.domain.requests
        if not book.holds(request.study) and book.undecided(researcher) >= MOST_UNDECIDED:
            raise RefusedError(
                f"{MOST_UNDECIDED} requests of {researcher} wait for the data owner already",
                kept="It was not kept",
                todo="have the data owner decide on them, then submit it as a new study",
            )

    def publish_decisions(self, session: OwnerSession) -> bool:
        """Tell researchers what was decided, also by a person in another process; return whether anything was."""
        published = False
        for job in session.jobs():
            if not self.knows(job):
                continue
            decision = self.domain.requests.decision(self._studies[key_of(job)])  # at every poll: not the whole request
            digest = sha256_hex(decision.model_dump_json().encode())
            if self._told[key_of(job)] != digest:
                signed = sign(self.domain.keys, "decision", decision)
                status = {"approved": JobStatus.APPROVED, "pending": JobStatus.PENDING}.get(
                    decision.decision, JobStatus.REJECTED
                )
                session.answer(job, status, {"decision.json": signed.to_bytes()}, reason=decision.reason)
                self._told[key_of(job)] = digest
                published = True
        return published
