"""The service: polls the store, takes requests and tickets, carries them out one at a time, survives kills."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.clinical import Record
from fedpriv.domain.announcer import Announcer
from fedpriv.domain.domain import Domain
from fedpriv.domain.ledger_mark import MarkKeeper
from fedpriv.domain.monitoring import Vitals, serving
from fedpriv.domain.refusals import Refusals
from fedpriv.domain.request_desk import RequestDesk, key_of
from fedpriv.domain.runner import check_machine
from fedpriv.domain.sandbox import Sandbox
from fedpriv.domain.starting import connect, prepare_data, read_record, register_dataset
from fedpriv.domain.stopping import Stop, Stopping
from fedpriv.domain.study_works import StudyWorks
from fedpriv.domain.ticket_desk import TicketDesk
from fedpriv.domain.trouble import Trouble
from fedpriv.domain.versions import VersionCheck
from fedpriv.errors import FedprivError, TransportError, UnreachableError
from fedpriv.files import folder_lock, stale_lock_pid
from fedpriv.study import Identity
from fedpriv.study.messages import TICKET_FILE
from fedpriv.transport import OwnerSession
from fedpriv.transport.newest import Newest
from fedpriv.transport.syncing import Clock
from fedpriv.unforeseen import OF_THE_MACHINE, is_of_the_machine, place_of, unforeseen

_QUIET_SECONDS, _QUIET_POLL_SECONDS = 600.0, 3.0
"""After ten minutes without news the store is asked less often: a poll costs requests, and at some stores money."""
_MOST_REFUSED = 64
"""Jobs that are refused before others are answered."""
_MOST_WAITING = 64
"""Jobs of one researcher that wait, and are looked at in each pass; an honest one has one in each of its studies."""
_VERSION_SECONDS = 60.0
"""How often a researcher whose job was not understood is asked for its version again."""
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
    _announcer: Announcer = field(init=False)
    _session: OwnerSession = field(init=False)
    _researchers: dict[str, Identity] = field(init=False)
    _requests: RequestDesk = field(init=False)
    _tickets: TicketDesk = field(init=False)
    _refusals: Refusals = field(init=False)
    _trouble: Trouble = field(init=False)
    _versions: VersionCheck = field(init=False)
    _mark: MarkKeeper = field(init=False)
    _marking: Newest[None] = field(init=False)
    _stopping: Stopping = field(default_factory=Stopping)
    _settled: set[tuple[str, str]] = field(default_factory=set)
    _asked_again: Clock = field(default_factory=lambda: Clock(_VERSION_SECONDS))

    def __post_init__(self) -> None:
        domain, notify = self.domain, self.notify
        self._announcer = Announcer(domain=domain, notify=notify, write_log=self.write_log)
        self._requests = RequestDesk(domain=domain, notify=notify)
        self._refusals = Refusals(domain=domain, notify=notify)
        self._trouble = Trouble(say=self._announcer.state, notify=notify, note=self._on_trouble)
        self._mark = MarkKeeper(domain=domain)
        self._marking = Newest(lambda _: self._mark.publish())
        self._versions = VersionCheck(keys=domain.keys, store_url=domain.config.store)
        self._tickets = TicketDesk(
            domain=domain,
            announcer=self._announcer,
            refusals=self._refusals,
            versions=self._versions,
            stopping=self._stopping,
            on_result=lambda: self._marking.put(None),
        )

    @property
    def vitals(self) -> Vitals:
        """What the monitor shows."""
        return self._announcer.vitals

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
            self._stopping.listen(parent)
            with serving(self.domain, self.vitals) as endpoint:
                self._announcer.log.event("service.started", pid=os.getpid(), port=endpoint and endpoint.port)
                self._serve(once)

    def _serve(self, once: bool) -> None:
        try:
            self._start()
            self._loop(once)
        except Stop:
            self._stopping.end()
            self.notify("stopped")
        except Exception as error:
            if not self._stopping.is_asked:
                self._announcer.log.event("service.failed", level="error", error=type(error).__name__)
                raise
            self.notify("stopped")  # DuckDB, say, tells of a stopped query as an error of its own
        finally:
            self._stopping.end()
            self.vitals.stopped()
            self._tickets.close()
            self._announcer.state("stopped")
            self._announcer.log.event("service.stopped")

    # -- start-up --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        resources = self.domain.config.resources
        check_machine(Sandbox(mode=resources.sandbox, readable=(), writable=self.domain.folder.state), resources)
        self._announcer.state("preparing data")
        record = read_record(self.domain, self._announcer.stage)
        prepared = prepare_data(self.domain, record, on_progress=self._announcer.stage)
        self._tickets.start(self._works(record))
        self._announcer.state("connecting")
        self._trouble.patiently(self._mark.check)
        self._trouble.patiently(self._connect)
        self._marking.put(None)
        self._trouble.patiently(lambda: register_dataset(self.domain, self._session, prepared))

    def _works(self, record: Record) -> StudyWorks:
        return StudyWorks(
            domain=self.domain,
            announcer=self._announcer,
            record=record,
            on_progress=self._tickets.tell_progress,
        )

    def _connect(self) -> None:
        researchers = self.domain.pinned_researchers(self._on_identity)
        self._session = connect(self.domain, researchers, self._on_refusal)
        self._tickets.connect(self._session, researchers)
        self._researchers = researchers  # last: if the store was away, this is done once more
        self.vitals.store_answered()

    # -- the loop --------------------------------------------------------------------------------------------

    def _loop(self, once: bool) -> None:
        self.notify("ready: waiting for requests")
        self._announcer.log.event("service.ready")
        self._announcer.state("waiting for requests")
        while True:
            try:
                if self._a_researcher_appeared():
                    self._connect()
                mark = self._session.news()
                self._session.receive()
                self.vitals.store_answered()
                self._handle_jobs()
                self._session.publish()  # answers first: somebody waits for them
                if self._requests.publish_decisions(self._session):
                    self._session.publish()
                pause = self._pause()
                self._stopping.check()
                if not once:
                    self._session.wait(mark, pause)  # asks the store, too
            except Exception as error:  # nothing that others sent ends the service
                self._stopping.check()
                pause = self._trouble.met(error)
                if not once:
                    time.sleep(pause)
            if once:
                return

    def _pause(self) -> float:
        """Return the seconds to the next poll: fewer polls where nothing has happened for long."""
        resources = self.domain.config.resources
        self.vitals.ready()
        if self._trouble.over():
            self._announcer.state("waiting for tickets")
            self._announcer.log.event("trouble.over")
        quiet = self._announcer.quiet_s > _QUIET_SECONDS
        return max(resources.poll_seconds, _QUIET_POLL_SECONDS) if quiet else resources.poll_seconds

    def _a_researcher_appeared(self) -> bool:
        expected = len(self.domain.config.researchers)
        return len(self._researchers) < expected and len(self.domain.pinned_researchers(self._on_identity)) > len(
            self._researchers
        )

    def _handle_jobs(self) -> None:
        refused, waiting = 0, Counter[str]()
        for job in self._session.jobs():
            self._stopping.check()
            if self._is_done_with(job) or waiting[job.ds_email] == _MOST_WAITING:
                continue
            try:
                self._handle(job)
            except UnreachableError:
                raise  # the store is away: the same job is taken up again when it is back
            except TransportError as error:  # of what somebody left there for this job: others go on meanwhile
                self._announcer.state(f"waiting for what {job.job_name} needs: {error.what}")
                waits = f"{job.job_name} of {job.ds_email} waits: {error}"
                if self._announcer.once(key_of(job), waits):
                    self.notify(waits)
            except FedprivError as refusal:
                self._refuse(job, self._explained(refusal, job.ds_email))
                refused += 1
            except Exception as error:  # whatever somebody sent, the service goes on with what others sent
                if is_of_the_machine(error):
                    raise
                self._announcer.log.event(
                    "job.failed", level="error", error=type(error).__name__, where=place_of(error)
                )
                self._refuse(job, unforeseen(error))
                refused += 1
            waiting[job.ds_email] += not self._is_done_with(job)
            if refused == _MOST_REFUSED:
                return  # answers of others go out first; the rest of these comes after the next poll

    def _is_done_with(self, job: JobRef) -> bool:
        return key_of(job) in self._settled or self._requests.knows(job)

    def _handle(self, job: JobRef) -> None:
        code = self._session.code_folder(job)
        ticket = code / TICKET_FILE
        if not ticket.exists():
            self._requests.receive(job, code, refused=self._session.status(job) is JobStatus.REJECTED)
        elif self._session.status(job) in _SETTLED or self._tickets.handle(job, ticket):
            self._settled.add(key_of(job))

    def _refuse(self, job: JobRef, error: FedprivError) -> None:
        """Answer a job that is no job; what was refused before a restart is not told again."""
        self._stopping.check()
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

    # -- telling people --------------------------------------------------------------------------------------

    def _on_trouble(self, error: Exception, pause_s: float) -> None:
        is_foreseen = isinstance(error, (FedprivError, *OF_THE_MACHINE))
        self.vitals.met_trouble(
            "machine" if isinstance(error, OF_THE_MACHINE) else "store" if is_foreseen else "unforeseen"
        )
        where = {} if is_foreseen else {"where": place_of(error)}
        level = "warning" if is_foreseen else "error"
        self._announcer.log.event("trouble.met", level=level, error=type(error).__name__, seconds=pause_s, **where)

    def _on_refusal(self, email: str, what: str) -> None:
        self._stopping.check()  # what a stop broke off is nobody's fault
        self._refusals.of_message(email, what)

    def _on_identity(self, email: str, what: str) -> None:
        if self._announcer.once(email, what):
            self._refusals.of_message(email, what)
