"""The courier: how the researcher's side asks domains and hears from them, whatever the question is."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from fedpriv.errors import MissingBlobError, StudyError, TransportError, UntrustedError, quoted
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import open_signed, sign
from fedpriv.researcher.answers import require_possible
from fedpriv.researcher.events import (
    DomainExcluded,
    DomainProgress,
    DomainReadmitted,
    Event,
    LinkMeasured,
    ResultReceived,
    TicketSent,
    Waiting,
)
from fedpriv.researcher.patience import patiently
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import BlobRef, CodeRequest, Identity, Progress, RequestDecision, Result, Signed, Ticket
from fedpriv.study.messages import MAX_BLOB_BYTES, TICKET_FILE

if TYPE_CHECKING:
    from fedpriv.transport import ResearcherSession

POLL_SECONDS = 0.2
_WAITING_SECONDS = 10.0
_LONG_TRANSFER_SECONDS = 2.0
_LOST_LOOKS, _LOST_LOOK_SECONDS = 12, 10.0
"""A blob that was announced and is not there is looked for again: its sender puts back what a store lost."""

T = TypeVar("T")


class Courier:
    """Sends tickets and blobs of one study, and waits for signed answers.

    Parameters
    ----------
    folder : StudyFolder
        Where answers are kept, so that nobody is asked twice.
    request : CodeRequest
        The submitted request.
    researcher : Researcher
        Whose keys sign the tickets.
    session : ResearcherSession
        The connection to the cohort.
    emit : Callable[[Event], None]
        Called on the event loop's thread for each event.
    """

    def __init__(
        self,
        folder: StudyFolder,
        request: CodeRequest,
        researcher: Researcher,
        session: ResearcherSession,
        emit: Callable[[Event], None],
    ) -> None:
        self._folder, self._researcher, self._session, self._emit = folder, researcher, session, emit
        self.request, self.plan, self.study = request, request.plan, request.study
        self._signs: dict[str, float] = {}
        self._given_up: dict[str, float] = {}
        self._asked: dict[str, Ticket] = {}  # the newest ticket of each domain
        self._polled = asyncio.Event()  # set after the next poll; each poll has one of its own
        self._syft = ThreadPoolExecutor(max_workers=1, thread_name_prefix="syft")  # syft's objects know one thread
        self._transfers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="transfer")

    def close(self) -> None:
        """End the worker threads."""
        self._syft.shutdown(wait=True, cancel_futures=True)
        self._transfers.shutdown(wait=True, cancel_futures=True)

    # -- questions and answers --------------------------------------------------------------------------------

    @functools.cached_property
    def cohort(self) -> dict[str, Identity]:
        """The pinned public keys of all domains, as they were when the study was submitted."""
        return self._folder.cohort()

    def active(self) -> tuple[str, ...]:
        """Return the domains that are not excluded; the first time that one is seen to be, say so."""
        return tuple(email for email in self.plan.emails if not self.is_excluded(email))

    def last_sign(self, email: str) -> float:
        """Return when a domain was last seen to do something, on the clock of the event loop; 0 if never."""
        return self._signs.get(email, 0.0)

    def give_up(self, email: str) -> None:
        """Note that a domain went quiet: it is away until it is seen to do something again."""
        self._given_up[email] = now()

    def is_away(self, email: str) -> bool:
        """Say whether a domain was given up and has shown no sign of life since."""
        return email in self._given_up and self.last_sign(email) <= self._given_up[email]

    async def ask_all(
        self,
        make: Callable[[str], Ticket],
        members: Sequence[str],
        *,
        required: bool = False,
        may_refuse: bool = False,
    ) -> dict[str, Result]:
        """Send domains their tickets and wait for all answers.

        Parameters
        ----------
        make : Callable[[str], Ticket]
            Makes the ticket for an address.
        members : sequence of str
            Who is asked.
        required : bool
            Wait for excluded domains too, because without their answer there is no way on.
        may_refuse : bool
            Return refusals and failures like other answers.

        Returns
        -------
        dict of str to Result
            By address; without the domains that were excluded before all had answered.

        Raises
        ------
        StudyError
            Naming the domains that refused or failed, with their reasons, after all have answered.
        """
        answers = await asyncio.gather(*(self.ask(make(email), required=required) for email in members))
        results = {r.member: r for r in answers if r is not None and (required or not self.is_excluded(r.member))}
        failed = [result for result in results.values() if result.status != "done"]
        if failed and not may_refuse:
            self.stop(failed)
        return results

    def stop(self, failed: Sequence[Result]) -> NoReturn:
        """Say why the study cannot go on; note a sum that was refused, so that resuming sums the round again.

        Raises
        ------
        StudyError
            Always.
        """
        keys = self._folder.keys()
        retired = [result for result in failed if keys is not None and result.retired_key == keys.key_id]
        if keys is not None and retired:
            tickets = [self._asked[result.member] for result in retired]
            number = max(1, min(t.aggregate.round if t.aggregate else t.round for t in tickets))
            names = sorted(result.member for result in retired)
            self._folder.keep_keys(keys.model_copy(update={"redo_round": number, "retired_by": tuple(names)}))
            raise StudyError(
                f"{', '.join(names)} refused the sum of round {number} and retired the study's key "
                f"({quoted(retired[0].reason)})",
                kept="The rounds before it and every domain's training are kept",
                todo="run `fedpriv study resume`: it makes a new key and sums the round again",
            )
        reasons = "; ".join(f"{result.member}: {quoted(result.reason)}" for result in failed)
        raise StudyError(
            f"{failed[0].kind} of round {failed[0].round} was not done by every domain ({reasons})",
            kept="The finished rounds are kept",
            todo="settle it with the data owner, then run `fedpriv study resume`",
        )

    async def ask(self, ticket: Ticket, *, required: bool = False) -> Result | None:
        """Send a domain its ticket, unless it is answered already, and wait for the answer, whatever it is.

        A ticket is sent again as it was sent first: to the domain it is the same work. After a refusal or a failure it
        is asked once more, under another name.

        Returns
        -------
        Result or None
            None if the domain is excluded before it answers, and its answer is not required.
        """
        while (known := self._folder.result(ticket)) is not None:
            if known.status == "done" or known.retired_key:
                self._asked[ticket.member] = self._folder.sent_ticket(ticket) or ticket
                return known
            ticket = ticket.model_copy(update={"retry": ticket.retry + 1})
        if not required and self.is_excluded(ticket.member):
            return None
        ticket = self._folder.sent_ticket(ticket) or ticket
        self._asked[ticket.member] = ticket
        await self._send(ticket)
        self._emit(TicketSent(study=self.study, domain=ticket.member, kind=ticket.kind, round=ticket.round))
        result = await self._answer(ticket, required=required)
        if result is None:
            return None
        self._folder.keep_result(ticket, result)
        self._saw(ticket.member)
        self._emit(
            ResultReceived(
                study=self.study,
                domain=ticket.member,
                kind=ticket.kind,
                round=ticket.round,
                metrics={str(name): value for name, value in result.metrics.items()},
                seconds=dict(result.seconds),
                status=result.status,
            )
        )
        self._measure(result)
        return result

    async def _send(self, ticket: Ticket) -> None:
        await self._on_syft(self._send_ticket, ticket)

    async def _answer(self, ticket: Ticket, *, required: bool) -> Result | None:
        """Wait for a domain's answer; None as soon as it is excluded, unless it is required."""
        since, what = now(), f"{ticket.kind} of round {ticket.round}"
        told = False
        while True:
            polled = self._polled
            result = await self._on_syft(self._read_result, ticket)
            if result is not None:
                return result
            if self.is_excluded(ticket.member):
                if not required:
                    return None
                if not told:  # at once, then as often as for everybody
                    told, since = True, -_WAITING_SECONDS
                    what += ", which cannot be summed without it: start its service again"
            since = self.say_waiting(since, [ticket.member], what)
            await polled.wait()

    def _measure(self, result: Result) -> None:
        """Put what a domain measured of its link into the estimate of it."""
        if result.link is None:
            return
        before = self._folder.link(result.member)
        link = before.observe(result.link)
        if link != before:
            self._folder.keep_link(result.member, link)
            self._emit(
                LinkMeasured(
                    study=self.study,
                    domain=result.member,
                    up_mbps=link.up_mbps,
                    down_mbps=link.down_mbps,
                    latency_s=link.latency_s,
                )
            )

    def _saw(self, email: str) -> None:
        self._signs[email] = now()

    def is_excluded(self, email: str) -> bool:
        """Say whether a domain is not waited for any more; the first time that this changes, say so."""
        exclusion = self._folder.excluded(email)
        record = f"announced/{email}"
        announced = self._folder.record(record) is not None
        if exclusion is not None and not announced:
            self._folder.keep_record(record, {"email": email})
            self._emit(DomainExcluded(study=self.study, domain=email, reason=exclusion.reason))
        if exclusion is None and announced:
            self._folder.remove_record(record)
            self._emit(DomainReadmitted(study=self.study, domain=email))
        return exclusion is not None

    def _send_ticket(self, ticket: Ticket) -> None:
        signed = self._folder.keep_ticket(ticket, sign(self._researcher.keys, "ticket", ticket))
        self._session.submit(ticket.member, ticket.name, {TICKET_FILE: signed}, entrypoint=TICKET_FILE)

    def _read_result(self, ticket: Ticket) -> Result | None:
        data = self._session.output(ticket.member, ticket.name, "result.json")
        if data is None:
            reason = self._session.refusal(ticket.member, ticket.name)
            if reason is not None:
                raise StudyError(
                    f"{ticket.member} refused a ticket unread: {quoted(reason)}", kept="Nothing was run there"
                )
            return None
        identity = self.cohort[ticket.member]
        result = open_signed(_signed(data), kind="result", identity=identity, model=Result)
        digest = sha256_hex(canonical_json(ticket.model_dump(mode="json")))
        if result.member != ticket.member or result.ticket_sha256 != digest:
            raise UntrustedError(f"{ticket.member} answered another ticket than it was sent", kept="It was not used")
        require_possible(result)
        return result

    async def decision_of(self, email: str) -> RequestDecision | None:
        """Return what a domain decided on the request, or None if it has not said anything yet."""
        return await self._on_syft(self._read_decision, email)

    def _read_decision(self, email: str) -> RequestDecision | None:
        data = self._session.output(email, request_job_name(self.study), "decision.json")
        if data is None:
            reason = self._session.refusal(email, request_job_name(self.study))
            if reason is None:
                return None
            return RequestDecision(study=self.study, member=email, decision="rejected", reason=reason)
        decision = open_signed(_signed(data), kind="decision", identity=self.cohort[email], model=RequestDecision)
        if decision.study != self.study or decision.member != email:
            raise UntrustedError(f"{email} decided on another request", kept="It was not used")
        return decision

    # -- blobs -----------------------------------------------------------------------------------------------

    async def send(self, email: str, name: str, data: bytes | Path) -> BlobRef:
        """Leave a blob, or a file as one, for one domain."""
        send = functools.partial(self._session.blobs.send, on_moved=self._moved(email, "sending"))
        return await self.in_background(send, email, name, data)

    async def fetch(self, email: str, blob: BlobRef, path: Path, *, max_bytes: int = MAX_BLOB_BYTES) -> Path:
        """Fetch a domain's blob, of so many bytes at the most, checked, to ``path``; one that is lost is waited for."""
        moved = self._moved(email, "fetching")
        receive = functools.partial(self._session.blobs.receive, max_bytes=max_bytes, on_moved=moved)
        for _ in range(_LOST_LOOKS):
            try:
                return await self.in_background(receive, email, blob, path)
            except MissingBlobError:
                await asyncio.sleep(_LOST_LOOK_SECONDS)
        return await self.in_background(receive, email, blob, path)

    def _moved(self, email: str, state: Literal["sending", "fetching"]) -> Callable[[int, int], None]:
        """Return what says how far a transfer of ours is, in per cent, once it has taken two seconds."""
        loop, started = asyncio.get_running_loop(), now()
        round_number = self._asked[email].round if email in self._asked else 0

        def say(done_bytes: int, total_bytes: int) -> None:
            if loop.time() - started < _LONG_TRANSFER_SECONDS:
                return
            step = 100 * done_bytes // total_bytes
            progress = Progress(study=self.study, round=round_number, state=state, step=step, steps=100)
            loop.call_soon_threadsafe(self._emit, DomainProgress(study=self.study, domain=email, progress=progress))

        return say

    async def remove(self, email: str, name: str) -> None:
        """Remove a blob of ours that a domain has taken."""
        await self.in_background(self._session.blobs.remove, email, name)

    # -- polling and threads ----------------------------------------------------------------------------------------

    async def with_polling(self, work: Awaitable[T], *beside: Awaitable[NoReturn]) -> T:
        """Run ``work`` beside a task that fetches messages and progress, and others that only ever end with an error.

        The first error of any of them ends all.
        """
        working = asyncio.ensure_future(work)
        others = [asyncio.ensure_future(task) for task in (self._poll(), *beside)]
        try:
            await asyncio.wait({working, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                if task.done() and not working.done():
                    task.result()
            return await working
        finally:
            for task in (working, *others):
                task.cancel()
            await asyncio.gather(working, *others, return_exceptions=True)

    async def _poll(self) -> NoReturn:
        last: dict[str, Any] = {}
        while True:
            mark = self._session.news()
            await self._on_syft(self._session.poll)
            for email, reason in self._session.refused():
                what = f"what it left on the store was refused: {reason}"
                self._emit(Waiting(study=self.study, domain=email, what=what))
            polled, self._polled = self._polled, asyncio.Event()
            polled.set()
            for email in self._folder.active(self.plan.emails):
                progress = await self.in_background(self._session.blobs.progress_of, email)
                if progress is not None and progress.study == self.study and progress != last.get(email):
                    last[email] = progress
                    self._saw(email)
                    self._emit(DomainProgress(study=self.study, domain=email, progress=progress))
            await self.in_background(self._session.wait, mark, POLL_SECONDS)

    def say_waiting(self, since: float, domains: list[str], what: str) -> float:
        if now() - since < _WAITING_SECONDS:
            return since
        for domain in domains:
            self._emit(Waiting(study=self.study, domain=domain, what=what))
        return now()

    async def _on_syft(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._in(self._syft, function, *arguments)

    async def in_background(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._in(self._transfers, function, *arguments)

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread; again and again while the store cannot be reached, saying so."""
        loop = asyncio.get_running_loop()
        return await patiently(lambda: loop.run_in_executor(threads, function, *arguments), self._on_trouble)

    def _on_trouble(self, error: TransportError) -> None:
        self._emit(Waiting(study=self.study, domain="the store", what=str(error)))


def now() -> float:
    """Return the time on the event loop's clock, which a simulation sets."""
    return asyncio.get_running_loop().time()


def request_job_name(study: str) -> str:
    """Return the syft job name of a code request."""
    return f"request-{study[:16]}"


def _signed(data: bytes) -> Signed:
    try:
        return Signed.model_validate_json(data)
    except ValueError as error:
        raise UntrustedError("A domain's answer is malformed", kept="It was not used") from error
