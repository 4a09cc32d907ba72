"""The courier of a simulation: tickets and answers take the virtual time that their links and domains take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from fedpriv.experiments.simulation.domain import Relay, SimulatedDomain
from fedpriv.protection import sign
from fedpriv.researcher.courier import Courier, now
from fedpriv.researcher.events import Event
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import BlobRef, CodeRequest, RequestDecision, Result, Ticket
from fedpriv.study.messages import MAX_BLOB_BYTES

_SIGN_SECONDS = 5.0
T = TypeVar("T")


class SimulatedCourier(Courier):
    """Hands tickets to simulated domains, each of which carries out one at a time.

    Parameters
    ----------
    domains : dict of str to SimulatedDomain
        By address.
    relay : Relay
        The researcher's blobs.
    answers : dict of (str, str) to Result
        Answers by ticket and address; it outlives a courier, as what domains keep outlives a researcher's kernel.
    """

    def __init__(
        self,
        folder: StudyFolder,
        request: CodeRequest,
        researcher: Researcher,
        emit: Callable[[Event], None],
        *,
        domains: dict[str, SimulatedDomain],
        relay: Relay,
        answers: dict[tuple[str, str], Result],
    ) -> None:
        super().__init__(folder, request, researcher, None, emit)  # type: ignore[arg-type] - there is no session
        self._domains, self._relay, self._known = domains, relay, answers
        self._at_work = {email: asyncio.Lock() for email in domains}
        self._arrived: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, email: str, name: str, data: bytes | Path) -> BlobRef:
        return self._relay.send(email, name, data)

    async def fetch(self, email: str, blob: BlobRef, path: Path, *, max_bytes: int = MAX_BLOB_BYTES) -> Path:
        return self._relay.receive(email, blob, path)

    async def remove(self, email: str, name: str) -> None:
        self._relay.remove(email, name)

    async def decision_of(self, email: str) -> RequestDecision | None:
        domain = self._domains[email]
        return domain.decision if now() >= domain.trace.approves_s else None

    async def in_background(self, function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)

    async def _send(self, ticket: Ticket) -> None:
        self._folder.keep_ticket(ticket, sign(self._researcher.keys, "ticket", ticket))
        key = (ticket.name, ticket.member)
        if key not in self._arrived:
            self._arrived[key] = asyncio.Event()
            task = asyncio.create_task(self._carry_out(ticket))
            self._tasks.add(task)

    async def _carry_out(self, ticket: Ticket) -> None:
        """Let a domain work on a ticket: it arrives, waits for its turn, is carried out, and its answer comes back."""
        domain, key = self._domains[ticket.member], (ticket.name, ticket.member)
        await asyncio.sleep(domain.trace.latency_s)
        async with self._at_work[ticket.member]:
            await asyncio.sleep(domain.trace.back_at(now()) - now())
            if key not in self._known:
                result, seconds = domain.answer(ticket)
                await asyncio.sleep(domain.trace.moved_by(now(), seconds) - now())
                self._known[key] = result
        self._arrived[key].set()

    async def _answer(self, ticket: Ticket, *, required: bool) -> Result | None:
        key, since = (ticket.name, ticket.member), now()
        while not self._arrived[key].is_set():
            if self.is_excluded(ticket.member) and not required:
                return None
            since = self.say_waiting(since, [ticket.member], f"{ticket.kind} of round {ticket.round}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived[key].wait(), timeout=_SIGN_SECONDS)
        return self._known[key]

    async def _poll(self) -> NoReturn:
        """See signs of life of the domains that work on something and are not away."""
        while True:
            for task in [task for task in self._tasks if task.done()]:
                task.result()
                self._tasks.remove(task)
            for email, domain in self._domains.items():
                if self._at_work[email].locked() and domain.trace.back_at(now()) == now():
                    self._saw(email)
            await asyncio.sleep(_SIGN_SECONDS)
