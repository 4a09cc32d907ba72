"""Where tickets come in and results go out: read, checked, held back until their time, carried out once, answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.domain.announcer import Announcer
from fedpriv.domain.approval import limits_now, opens_in
from fedpriv.domain.domain import Domain
from fedpriv.domain.missing import Missing
from fedpriv.domain.refusals import Refusals
from fedpriv.domain.stopping import Stopping
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.study_works import StudyWorks
from fedpriv.domain.tickets import StudyWork, failure
from fedpriv.domain.trouble import of_the_machine
from fedpriv.domain.versions import VersionCheck
from fedpriv.errors import FedprivError, MissingBlobError, TransportError, UnknownVersionError, UntrustedError
from fedpriv.files import canonical_json, parse_json, sha256_hex
from fedpriv.protection import open_signed, sign
from fedpriv.study import Identity, Progress, Result, Signed, Ticket
from fedpriv.study.messages import MAX_TICKET_BYTES, TICKET_FILE
from fedpriv.transport import OwnerSession
from fedpriv.transport.newest import Newest
from fedpriv.unforeseen import OF_THE_MACHINE, place_of, unforeseen

_RUNS_THE_MODEL = ("prepare", "train", "finish")
_WITHOUT_A_ROUND = ("prepare", "rekey", "ping")
_STATUS = {"done": JobStatus.DONE, "refused": JobStatus.REJECTED, "failed": JobStatus.FAILED}


@dataclass(kw_only=True)
class TicketDesk:
    """Carries out tickets, one at a time; a result that was kept is sent again and nothing done twice.

    Parameters
    ----------
    domain : Domain
        The opened domain.
    announcer : Announcer
        Told what is done and what waits.
    refusals : Refusals
        Told what was not carried out.
    versions : VersionCheck
        Asked whether all parties of a ticket understand each other.
    stopping : Stopping
        Asked before an error is answered.
    on_result : Callable[[], None]
        Called before a result goes out.
    """

    domain: Domain
    announcer: Announcer
    refusals: Refusals
    versions: VersionCheck
    stopping: Stopping
    on_result: Callable[[], None]
    _session: OwnerSession = field(init=False)
    _researchers: Mapping[str, Identity] = field(init=False)
    _works: StudyWorks | None = None
    _missing: Missing = field(default_factory=Missing)
    _progress: Newest[tuple[str, Progress]] = field(init=False)

    def __post_init__(self) -> None:
        self._progress = Newest(self._show_progress)

    def start(self, works: StudyWorks) -> None:
        """Have tickets carried out by these works."""
        self._works = works

    def connect(self, session: OwnerSession, researchers: Mapping[str, Identity]) -> None:
        """Answer over this session, to these researchers."""
        self._session, self._researchers = session, researchers

    def close(self) -> None:
        """End what works keep running."""
        if self._works:
            self._works.close()

    # -- one ticket ------------------------------------------------------------------------------------------

    def handle(self, job: JobRef, path: Path) -> bool:
        """Carry out the ticket of a job, or take its kept result, and answer; return False while it waits.

        Raises
        ------
        FedprivError
            If it is no ticket for this domain by who sent it.
        TransportError
            If the store does not give what it needs; it is looked at again.
        MachineTrouble
            If this machine does not let it; it is looked at again.
        """
        ticket, digest = self._read(job, path)
        with of_the_machine():
            return self._answer(job, ticket, digest)

    def _read(self, job: JobRef, path: Path) -> tuple[Ticket, str]:
        """Return a ticket and its digest after checking who signed it and that it is for us."""
        if job.ds_email not in self._researchers:
            raise TransportError(f"the keys of {job.ds_email} are not on the store, or cannot be used")
        with path.open("rb") as stream:
            data = stream.read(MAX_TICKET_BYTES + 1)
        try:
            signed = Signed.model_validate_json(
                canonical_json(parse_json(data, source=TICKET_FILE, max_bytes=MAX_TICKET_BYTES))
            )
        except ValueError as error:
            raise UntrustedError("The ticket is malformed", kept="Nothing was run") from error
        ticket = open_signed(signed, kind="ticket", identity=self._researchers[job.ds_email], model=Ticket)
        if ticket.member != self.domain.config.email or ticket.name != job.job_name:
            raise UntrustedError("The ticket is for another domain or has another name", kept="Nothing was run")
        if ticket.round == 0 and ticket.kind not in _WITHOUT_A_ROUND:
            raise UntrustedError(f"The ticket to {ticket.kind} names no round", kept="Nothing was run")
        if self.domain.requests.researcher(ticket.study) != job.ds_email:
            raise UntrustedError("The ticket is for a study of another researcher", kept="Nothing was run")
        return ticket, sha256_hex(canonical_json(signed.payload))

    def _answer(self, job: JobRef, ticket: Ticket, digest: str) -> bool:
        folder = StudyFolder(self.domain.folder.study(ticket.study))
        signed = folder.result(digest)
        if signed is None:
            if self._waits_for_its_hours(ticket, folder) or self._missing.is_too_early(digest):
                return False
            result = self._carried_out(ticket, digest, folder)
            if result is None:
                return False
            if ticket.kind in _RUNS_THE_MODEL:
                folder.forget_hours()
            signed = sign(self.domain.keys, "result", result)
            folder.keep_result(digest, signed)
        self.on_result()
        status, reason = _STATUS[str(signed.payload["status"])], str(signed.payload.get("reason", ""))
        self._session.answer(job, status, {"result.json": signed.to_bytes()}, reason=reason[:500])
        self.announcer.state("waiting for tickets")
        return True

    # -- carrying out ----------------------------------------------------------------------------------------

    def _carried_out(self, ticket: Ticket, digest: str, folder: StudyFolder) -> Result | None:
        """Return the answer to a ticket, also to one that was not done; None while it waits."""
        try:
            if ticket.kind == "consent" and self._work(ticket, folder).releasing.is_undecided(ticket):
                self._wait(f"waiting for the data owner: release of study {ticket.study[:12]}", ticket)
                return None
            return self._carry_out(ticket, digest, folder)
        except (TransportError, *OF_THE_MACHINE):
            raise
        except FedprivError as error:
            if isinstance(error, MissingBlobError | UnknownVersionError) and self._missing.may_still_come(digest):
                self._wait(f"waiting for what {ticket.kind} of round {ticket.round} needs: {error.what}", ticket)
                return None
            return self._failure(ticket, digest, error)
        except Exception as error:  # one that nobody foresaw is answered with its place
            self.announcer.log.event("ticket.failed", level="error", error=type(error).__name__, where=place_of(error))
            return self._failure(ticket, digest, unforeseen(error))

    def _carry_out(self, ticket: Ticket, digest: str, folder: StudyFolder) -> Result:
        announcer, facts = self.announcer, {"study": ticket.study[:12], "ticket": ticket.kind, "round": ticket.round}
        announcer.notify(f"study {ticket.study[:12]}: {ticket.kind}, round {ticket.round}")
        announcer.state(f"{ticket.kind}, round {ticket.round}")
        announcer.log.event("ticket.started", **facts)
        started = time.monotonic()
        self._require_understanding(ticket, folder)
        with announcer.vitals.working():
            result = self._work(ticket, folder).carry_out(ticket, digest)
        announcer.vitals.carried_out(result.seconds, result.link)
        moved = result.link.model_dump(include={"up_bytes", "down_bytes"}) if result.link else {}
        announcer.log.event("ticket.done", seconds=round(time.monotonic() - started, 3), **facts, **moved)
        return result

    def _require_understanding(self, ticket: Ticket, folder: StudyFolder) -> None:
        """Refuse a ticket whose researcher or members run versions that are apart from ours, before anything runs."""
        researcher = self._researchers[self.domain.requests.researcher(ticket.study)]
        known = folder.identities() if ticket.members else {}
        members = [known[email] for email in ticket.members if email in known]
        self.versions.require([researcher, *members], kept="Nothing was run", again=ticket.kind == "prepare")

    def _work(self, ticket: Ticket, folder: StudyFolder) -> StudyWork:
        """Return the work of an approved study; what it still allows is read anew at every step of it."""
        stored = self.domain.requests.get(ticket.study)
        limits_now(stored.decision)
        if self._works is None:
            raise RuntimeError("the desk was not started")
        return self._works.of(stored, folder, self._session.blobs)

    def _failure(self, ticket: Ticket, digest: str, error: FedprivError) -> Result:
        self.stopping.check()
        self.refusals.of_ticket(ticket, error)
        work = self._works.opened(ticket.study) if self._works else None
        retired = work.context.key_room.retired_key() if work else ""
        return failure(ticket, digest, self.domain.config.email, error, retired_key=retired)

    # -- waiting ---------------------------------------------------------------------------------------------

    def _waits_for_its_hours(self, ticket: Ticket, folder: StudyFolder) -> bool:
        """Say whether a ticket that runs the model came outside the approved hours: it is looked at again later."""
        limits = self.domain.requests.decision(ticket.study).limits
        if limits is None or limits.hours is None or ticket.kind not in _RUNS_THE_MODEL or opens_in(limits) == 0.0:
            return False
        folder.keep_hours(limits.hours, ticket.kind, ticket.round)
        self._wait(f"waiting for the approved hours ({limits.hours}): {ticket.kind}, round {ticket.round}", ticket)
        return True

    def _wait(self, state: str, ticket: Ticket) -> None:
        """Say to people here, and to the researcher, that a ticket waits."""
        if self.announcer.state(state):
            progress = Progress(study=ticket.study, round=ticket.round, state="waiting")
            self.tell_progress(self.domain.requests.researcher(ticket.study), progress)

    def tell_progress(self, researcher: str, progress: Progress) -> float:
        """Have a researcher told where their study is; return the seconds that telling took last."""
        self._progress.put((researcher, progress))
        return self._progress.seconds

    def _show_progress(self, news: tuple[str, Progress]) -> None:
        self._session.blobs.show_progress(*news)
        self.announcer.vitals.store_answered()
