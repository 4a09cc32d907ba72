"""The service: polls the store, takes requests and tickets, carries them out one at a time, survives kills."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.clinical import PreparedData, Record
from fedpriv.clinical.statement import state_shard
from fedpriv.domain.approval import limits_now, opens_in
from fedpriv.domain.context import StudyContext
from fedpriv.domain.domain import Domain
from fedpriv.domain.ledger_mark import MarkKeeper
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.missing import MissingBlobs
from fedpriv.domain.monitoring import ServiceLog, Vitals, serving
from fedpriv.domain.refusals import Refusals
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.request_desk import RequestDesk, key_of
from fedpriv.domain.runner import check_machine
from fedpriv.domain.sandbox import Sandbox
from fedpriv.domain.starting import connect, prepare_data, read_record, register_dataset
from fedpriv.domain.stopping import Stop, stop_on_signals
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.tickets import StudyWork, failure
from fedpriv.domain.trouble import OF_THE_MACHINE, Trouble, is_of_the_machine, of_the_machine, place_of, unforeseen
from fedpriv.domain.versions import VersionCheck
from fedpriv.errors import (
    FedprivError,
    MissingBlobError,
    RefusedError,
    TransportError,
    UnreachableError,
    UntrustedError,
)
from fedpriv.files import canonical_json, folder_lock, parse_json, sha256_hex, stale_lock_pid, write_json
from fedpriv.protection import open_signed, sign
from fedpriv.study import CodeRequest, Identity, Progress, RequestDecision, Result, Signed, Ticket
from fedpriv.study.messages import MAX_TICKET_BYTES, TICKET_FILE
from fedpriv.study.shard import ShardStatement
from fedpriv.training.base_model import ensure_model
from fedpriv.transport import OwnerSession
from fedpriv.transport.newest import Newest
from fedpriv.transport.syncing import Clock

_QUIET_SECONDS, _QUIET_POLL_SECONDS = 600.0, 3.0
"""After ten minutes without news the store is asked less often: a poll costs requests, and at some stores money."""
_RUNS_THE_MODEL = ("prepare", "train", "finish")
_MOST_REFUSED = 64
"""Jobs that are refused before others are answered."""
_VERSION_SECONDS = 60.0
"""How often a researcher whose job was not understood is asked for its version again."""
_WITHOUT_A_ROUND = ("prepare", "rekey", "ping")
_SETTLED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.REJECTED)

Notify = Callable[[str], None]


@dataclass(kw_only=True)
class DomainService:
    """Serves one domain until it is stopped.

    Parameters
    ----------
    domain : Domain
        The opened domain.
    notify : Callable[[str], None]
        Called with one sentence for each thing that a person at the domain may want to see.
    write_log : Callable[[str], None], optional
        Called with a line of JSON for each event; None: no log.
    """

    domain: Domain
    notify: Notify
    write_log: Callable[[str], None] | None = None
    vitals: Vitals = field(init=False, default_factory=Vitals)
    _log: ServiceLog = field(init=False)
    _record: Record = field(init=False)
    _prepared: PreparedData = field(init=False)
    _session: OwnerSession = field(init=False)
    _researchers: dict[str, Identity] = field(init=False)
    _progress: Newest[tuple[str, Progress]] = field(init=False)
    _trouble: Trouble = field(init=False)
    _desk: RequestDesk = field(init=False)
    _works: dict[str, StudyWork] = field(default_factory=dict)
    _settled: set[tuple[str, str]] = field(default_factory=set)
    _refusals: Refusals = field(init=False)
    _told: dict[str | tuple[str, str], str] = field(default_factory=dict)
    _missing: MissingBlobs = field(default_factory=MissingBlobs)
    _asked_again: Clock = field(default_factory=lambda: Clock(_VERSION_SECONDS))
    _versions: VersionCheck = field(init=False)
    _mark: MarkKeeper = field(init=False)
    _marking: Newest[None] = field(init=False)
    _said: str = ""
    _acted_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._desk = RequestDesk(domain=self.domain, notify=self.notify)
        self._refusals = Refusals(domain=self.domain, notify=self.notify)
        self._trouble = Trouble(say=self._say, notify=self.notify, note=self._on_trouble)
        self._progress = Newest(self._show_progress)
        self._mark = MarkKeeper(domain=self.domain)
        self._marking = Newest(lambda _: self._mark.publish())
        self._versions = VersionCheck(keys=self.domain.keys, store_url=self.domain.config.store)
        self._log = ServiceLog(self.domain.config.email, self.write_log)
        self.domain.ledger.on_append = self._log.entry

    def run(self, *, parent: int | None = None, once: bool = False) -> None:
        """Serve until SIGTERM or SIGINT (or, with ``once``, for one poll).

        Parameters
        ----------
        parent : int, optional
            Process id; the service ends itself when that process is gone.

        Raises
        ------
        LockError
            If another process serves this domain. A lock that a dead process left is taken over.
        """
        lock = self.domain.folder.lock_path
        dead = stale_lock_pid(lock)
        with folder_lock(lock, holder=f"The domain {self.domain.config.name}", todo="stop that process first"):
            if dead is not None:
                self.notify(f"the last service (process {dead}) did not stop in order; going on where it was")
            stop_on_signals(parent)
            with serving(self.domain, self.vitals) as endpoint:
                self._log.event("service.started", pid=os.getpid(), port=endpoint and endpoint.port)
                self._serve(once)

    def _serve(self, once: bool) -> None:
        try:
            self._start()
            self._loop(once)
        except Stop:
            self.notify("stopped")
        except Exception as error:
            self._log.event("service.failed", level="error", error=type(error).__name__)
            raise
        finally:
            self.vitals.stopped()
            for work in self._works.values():
                work.close()
            self._say("stopped")
            self._log.event("service.stopped")

    # -- start-up --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        resources = self.domain.config.resources
        check_machine(Sandbox(mode=resources.sandbox, readable=(), writable=self.domain.folder.state), resources)
        self._say("preparing data")
        self._record = read_record(self.domain, self._on_stage)
        self._prepared = prepare_data(self.domain, self._record, on_progress=self._on_stage)
        self._say("connecting")
        self._trouble.patiently(self._mark.check)
        self._trouble.patiently(self._connect)
        self._marking.put(None)
        self._trouble.patiently(lambda: register_dataset(self.domain, self._session, self._prepared))

    def _connect(self) -> None:
        researchers = self.domain.pinned_researchers(self._on_identity)
        self._session = connect(self.domain, researchers, self._refusals.of_message)
        self._researchers = researchers  # last: if the store was away, this is done once more
        self.vitals.store_answered()

    # -- the loop --------------------------------------------------------------------------------------------

    def _loop(self, once: bool) -> None:
        self.notify("ready: waiting for requests")
        self._log.event("service.ready")
        self._say("waiting for requests")
        while True:
            try:
                if self._a_researcher_appeared():
                    self._connect()
                mark = self._session.news()
                self._session.receive()
                self.vitals.store_answered()
                self._handle_jobs()
                self._session.publish()  # answers first: somebody waits for them
                if self._desk.publish_decisions(self._session):
                    self._session.publish()
                pause = self._pause()
            except (FedprivError, OSError) as error:
                mark, pause = None, self._trouble.met(error)
            if once:
                return
            if mark is None:
                time.sleep(pause)
            else:
                self._session.wait(mark, pause)

    def _pause(self) -> float:
        """Return the seconds to the next poll: fewer polls where nothing has happened for long."""
        resources = self.domain.config.resources
        self.vitals.ready()
        if self._trouble.over():
            self._say("waiting for tickets")
            self._log.event("trouble.over")
        quiet_s = time.monotonic() - self._acted_s
        return resources.poll_seconds if quiet_s < _QUIET_SECONDS else max(resources.poll_seconds, _QUIET_POLL_SECONDS)

    def _a_researcher_appeared(self) -> bool:
        expected = len(self.domain.config.researchers)
        return len(self._researchers) < expected and len(self.domain.pinned_researchers(self._on_identity)) > len(
            self._researchers
        )

    def _handle_jobs(self) -> None:
        refused = 0
        for job in self._session.jobs():
            if key_of(job) in self._settled or self._desk.knows(job):
                continue
            try:
                self._handle(job)
            except UnreachableError:
                raise  # the store is away: the same job is taken up again when it is back
            except TransportError as error:  # of what somebody left there for this job: others go on meanwhile
                self._say(f"waiting for what {job.job_name} needs: {error.what}")
                self._tell_once(key_of(job), f"{job.job_name} of {job.ds_email} waits: {error}")
            except FedprivError as refusal:
                self._refuse(job, self._explained(refusal, job.ds_email))
                refused += 1
            except Exception as error:  # whatever somebody sent, the service goes on with what others sent
                if is_of_the_machine(error):
                    raise
                self._log.event("job.failed", level="error", error=type(error).__name__, where=place_of(error))
                self._refuse(job, unforeseen(error))
                refused += 1
            if refused == _MOST_REFUSED:
                return  # answers of others go out first; the rest of these comes after the next poll

    def _handle(self, job: JobRef) -> None:
        code = self._session.code_folder(job)
        ticket = code / TICKET_FILE
        if not ticket.exists():
            self._desk.receive(job, code)
        elif self._session.status(job) in _SETTLED:
            self._settled.add(key_of(job))
        else:
            self._handle_ticket(job, ticket)

    def _refuse(self, job: JobRef, error: FedprivError) -> None:
        """Answer a job that is no job; what was refused before a restart is not told again."""
        if self._session.status(job) is not JobStatus.REJECTED:
            self._refusals.of_job(job.ds_email, job.job_name, error.what)
            self._session.answer(job, JobStatus.REJECTED, {}, reason=str(error)[:500])
        self._settled.add(key_of(job))

    def _explained(self, error: FedprivError, researcher: str) -> FedprivError:
        """Return the reason why a job was not understood: its sender's version, where that is apart from ours."""
        try:
            known = [self._researchers[researcher]] if researcher in self._researchers else []
            self._versions.require(known, kept="Nothing was run", again=self._asked_again.is_due(researcher))
        except UnreachableError:
            raise
        except TransportError:
            return error
        except FedprivError as apart:
            return apart
        return error

    # -- tickets ---------------------------------------------------------------------------------------------

    def _handle_ticket(self, job: JobRef, path: Path) -> None:
        ticket, digest = self._read_ticket(job, path)
        with of_the_machine():
            self._answer_ticket(job, ticket, digest)

    def _answer_ticket(self, job: JobRef, ticket: Ticket, digest: str) -> None:
        """Carry out a ticket that was understood, or take its kept result, and answer."""
        folder = StudyFolder(self.domain.folder.study(ticket.study))
        signed = folder.result(digest)
        if signed is None:
            waits = self._waits_for_its_hours(ticket) or self._missing.is_too_early(digest)
            result = None if waits else self._carried_out(ticket, digest, folder)
            if result is None:
                return  # it waits, and is looked at again
            signed = sign(self.domain.keys, "result", result)
            folder.keep_result(digest, signed)
        status = {"done": JobStatus.DONE, "refused": JobStatus.REJECTED}.get(
            str(signed.payload["status"]), JobStatus.FAILED
        )
        reason = str(signed.payload.get("reason", ""))
        self._marking.put(None)
        self._session.answer(job, status, {"result.json": signed.to_bytes()}, reason=reason[:500])
        self._settled.add(key_of(job))
        self._say("waiting for tickets")

    def _waits_for_its_hours(self, ticket: Ticket) -> bool:
        """Say whether a ticket that runs the model came outside the approved hours: it is looked at again later."""
        limits = self.domain.requests.decision(ticket.study).limits
        if limits is None or ticket.kind not in _RUNS_THE_MODEL or opens_in(limits) == 0.0:
            return False
        self._wait(f"waiting for the approved hours ({limits.hours}): {ticket.kind}, round {ticket.round}", ticket)
        return True

    def _wait(self, state: str, ticket: Ticket) -> None:
        """Say to people here, and to the researcher, that a ticket waits."""
        if self._say(state):
            progress = Progress(study=ticket.study, round=ticket.round, state="waiting")
            self._progress.put((self.domain.requests.get(ticket.study).researcher, progress))

    def _read_ticket(self, job: JobRef, path: Path) -> tuple[Ticket, str]:
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
        if self.domain.requests.get(ticket.study).researcher != job.ds_email:
            raise UntrustedError("The ticket is for a study of another researcher", kept="Nothing was run")
        return ticket, sha256_hex(canonical_json(signed.payload))

    def _carried_out(self, ticket: Ticket, digest: str, folder: StudyFolder) -> Result | None:
        """Return the answer to a ticket; to one that ends in an error that nobody foresaw, a failure with its place."""
        try:
            return self._carry_out(ticket, digest, folder)
        except (FedprivError, *OF_THE_MACHINE):
            raise
        except Exception as error:
            self._log.event("ticket.failed", level="error", error=type(error).__name__, where=place_of(error))
            return self._failure(ticket, digest, unforeseen(error))

    def _carry_out(self, ticket: Ticket, digest: str, folder: StudyFolder) -> Result | None:
        """Return the answer to a ticket, or None while it waits for the data owner."""
        try:
            if ticket.kind == "consent" and self._work(ticket, folder).releasing.is_undecided(ticket):
                self._wait(f"waiting for the data owner: release of study {ticket.study[:12]}", ticket)
                return None
            self.notify(f"study {ticket.study[:12]}: {ticket.kind}, round {ticket.round}")
            self._say(f"{ticket.kind}, round {ticket.round}")
            facts = {"study": ticket.study[:12], "ticket": ticket.kind, "round": ticket.round}
            self._log.event("ticket.started", **facts)
            started = time.monotonic()
            self._require_understanding(ticket, folder)
            with self.vitals.working():
                result = self._work(ticket, folder).carry_out(ticket, digest)
            self.vitals.carried_out(result.seconds, result.link)
            moved = result.link.model_dump(include={"up_bytes", "down_bytes"}) if result.link else {}
            self._log.event("ticket.done", seconds=round(time.monotonic() - started, 3), **facts, **moved)
            return result
        except TransportError:
            raise
        except FedprivError as error:
            if isinstance(error, MissingBlobError) and self._missing.may_still_come(digest):
                self._wait(f"waiting for what {ticket.kind} of round {ticket.round} needs: {error.what}", ticket)
                return None
            return self._failure(ticket, digest, error)

    def _failure(self, ticket: Ticket, digest: str, error: FedprivError) -> Result:
        self.domain.ledger.append(
            "ticket.refused", study=ticket.study, ticket=ticket.kind, round=ticket.round, reason=error.what
        )
        self.notify(f"study {ticket.study[:12]}: {ticket.kind} of round {ticket.round} not done: {error}")
        work = self._works.get(ticket.study)
        retired = work.context.key_room.retired_key() if work else ""
        return failure(ticket, digest, self.domain.config.email, error, retired_key=retired)

    def _require_understanding(self, ticket: Ticket, folder: StudyFolder) -> None:
        """Refuse a ticket whose researcher or members run versions that are apart from ours, before anything runs."""
        researcher = self._researchers[self.domain.requests.get(ticket.study).researcher]
        known = folder.identities() if ticket.members else {}
        members = [known[email] for email in ticket.members if email in known]
        self._versions.require([researcher, *members], kept="Nothing was run", again=ticket.kind == "prepare")

    def _work(self, ticket: Ticket, folder: StudyFolder) -> StudyWork:
        """Return the work of an approved study; what it still allows is read anew at every step of it."""
        stored = self.domain.requests.get(ticket.study)
        limits_now(stored.decision)
        if stored.request.study not in self._works:
            choice = stored.request.plan.base_model
            self._say(f"fetching the base model {choice.name}")
            model = ensure_model(choice.name)
            if choice.digest is not None and choice.digest != model.digest:
                raise RefusedError(
                    f"The base model {choice.name} here has other weights than the plan names",
                    kept="Nothing was run",
                    todo="remove it from the model cache on both sides, or agree on one source",
                )
            context = StudyContext(
                config=self.domain.config,
                keys=self.domain.keys,
                folder=folder,
                stored=stored,
                decision=functools.partial(self._decision, stored.request.study),
                ledger=self.domain.ledger,
                blobs=self._session.blobs,
                on_progress=lambda progress: self._on_progress(stored.researcher, progress),
                notify=self.notify,
            )
            prepared = prepare_data(self.domain, self._record, stored.request, self._on_stage)
            self._works[stored.request.study] = StudyWork(
                context=context,
                releasing=Releasing(context, self.domain.requests),
                training=LocalTraining(
                    plan=stored.request.plan,
                    folder=folder,
                    recipe=self.domain.requests.recipe_path(stored.request.study),
                    prepared=prepared,
                    model=model,
                    resources=self.domain.config.resources,
                ),
                prepared=prepared,
                model=model,
                shard=self._statement(stored.request, prepared),
            )
        return self._works[stored.request.study]

    def _statement(self, request: CodeRequest, prepared: PreparedData) -> ShardStatement:
        config, tally = self.domain.config, self._record.tally
        return state_shard(
            config.email, config.data.dataset, tally, prepared, task=request.plan.task, files=request.files
        )

    def _decision(self, study: str) -> RequestDecision:
        self.vitals.sign()  # a job that trains asks for it four times a second
        return self.domain.requests.decision(study)

    # -- telling people --------------------------------------------------------------------------------------

    def _show_progress(self, news: tuple[str, Progress]) -> None:
        self._session.blobs.show_progress(*news)
        self.vitals.store_answered()

    def _on_trouble(self, error: Exception, pause_s: float) -> None:
        self.vitals.met_trouble("machine" if isinstance(error, OSError) else "store")
        self._log.event("trouble.met", level="warning", error=type(error).__name__, seconds=pause_s)

    def _on_progress(self, researcher: str, progress: Progress) -> float:
        steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
        self._say(f"{progress.state}{steps}, round {progress.round}")
        self._progress.put((researcher, progress))
        return self._progress.seconds

    def _on_stage(self, stage: str, fraction: float) -> None:
        """Say where preparing is, in steps of a tenth."""
        self._say(f"preparing data: {stage}, {int(10 * fraction) * 10} %")

    def _on_identity(self, email: str, what: str) -> None:
        if self._told.get(email) != what:
            self._told[email] = what
            self._refusals.of_message(email, what)

    def _tell_once(self, of: tuple[str, str], what: str) -> None:
        if self._told.get(of) != what:
            self._told[of] = what
            self.notify(what)

    def _say(self, state: str) -> bool:
        """Write what the service is doing and since when; return whether that is something new."""
        if state == self._said:
            return False
        self._said, self._acted_s = state, time.monotonic()
        self.vitals.sign()
        status = {"state": state, "since_s": round(time.time(), 3), "pid": os.getpid()}
        with contextlib.suppress(OSError):  # on a full disk too, the service goes on and says what is wrong
            write_json(self.domain.folder.status_path, status, durable=False)
        return True
