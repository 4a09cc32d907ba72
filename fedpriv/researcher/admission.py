"""Who takes part: domains whose data owner approved and that are prepared; late ones join while rounds go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fedpriv.clinical.statement import needed_columns, task_digest
from fedpriv.errors import StudyError, UntrustedError, quoted
from fedpriv.protection import open_signed
from fedpriv.researcher.answers import require_same_adapter
from fedpriv.researcher.courier import Courier, now
from fedpriv.researcher.events import Decided, DomainJoined, Event
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.records import Exclusion
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import RequestDecision, Result, Ticket
from fedpriv.study.shard import ShardStatement, differences

_LOOK_SECONDS = 0.5


class Admission:
    """Waits for approvals and has domains prepare, each as soon as it can.

    Attributes
    ----------
    prepared : dict of str to Result
        The answers to the prepare tickets so far, by address.
    """

    def __init__(self, folder: StudyFolder, courier: Courier, keys: KeyRelay, emit: Callable[[Event], None]) -> None:
        self._folder, self._courier, self._keys, self._emit = folder, courier, keys, emit
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.prepared: dict[str, Result] = {}
        self._shards: dict[str, ShardStatement] = {}

    async def open(self, need: Callable[[], int]) -> None:
        """Wait until enough domains are prepared, the key maker among them; go on admitting the others.

        Parameters
        ----------
        need : Callable[[], int]
            How many are enough.

        Raises
        ------
        StudyError
            If a data owner rejects the request and too few are left, or a domain cannot prepare.
        """
        maker = self._courier.plan.key_maker
        while True:
            self.look()
            present = [email for email in self._courier.active() if email in self.prepared]
            if len(present) >= need() and (self._folder.keys() is not None or maker not in self._courier.active()):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Begin to admit whoever is not admitted yet; raise what went wrong with others."""
        for email in self._courier.active():
            if email not in self._tasks:
                self._tasks[email] = asyncio.create_task(self._admit(email))
        for email, task in list(self._tasks.items()):
            if task.done():
                task.result()
                if email not in self.prepared:  # it was excluded meanwhile; it may be readmitted
                    del self._tasks[email]

    async def close(self) -> None:
        """End what is still waiting."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def approvals(self) -> dict[str, RequestDecision]:
        """Wait until every domain approved.

        Raises
        ------
        StudyError
            As soon as one rejects, with its reason.
        """
        await asyncio.gather(*(self._approval(email) for email in self._courier.active()))
        return self._folder.decisions()

    async def _admit(self, email: str) -> None:
        if not await self._approval(email):
            return
        identities = tuple(identity for _, identity in sorted(self._courier.cohort.items()))
        result = await self._courier.ask(
            Ticket(study=self._courier.study, kind="prepare", round=0, member=email, identities=identities)
        )
        if result is None:
            return
        if result.status != "done":
            todo = "settle it with the data owner, then run `fedpriv study resume`"
            self._leave_out_or_stop(email, f"was not prepared: {quoted(result.reason)}", todo)
            return
        require_same_adapter({**self.prepared, email: result})
        self._require_same_shards(email, result)
        if email == self._courier.plan.key_maker and self._folder.keys() is None:
            await self._keys.take(result, generation=1, from_round=1)
        self.prepared[email] = result
        self._emit(DomainJoined(study=self._courier.study, domain=email))

    def _require_same_shards(self, email: str, result: Result) -> None:
        """Keep a domain's statement about its shard, if it is no other than what those before it said.

        Raises
        ------
        StudyError
            If the shards do not agree in what the task reads.
        UntrustedError
            If there is none, or another domain signed it.
        """
        if result.shard is None:
            raise UntrustedError(f"{email} said nothing about its shard", kept="It does not take part")
        statement = open_signed(result.shard, kind="shard", identity=self._courier.cohort[email], model=ShardStatement)
        if statement.member != email:
            raise UntrustedError(f"{email} answered with another's statement", kept="It does not take part")
        request = self._courier.request
        given = {**self._shards, email: statement}
        found = differences(given, needed_columns(request.plan.task, request.files))
        if statement.task_sha256 != task_digest(request.plan.task, request.files):
            found.insert(0, f"{email} told for another task than the plan's")
        if found:
            raise StudyError(
                f"The shards do not agree: {'; '.join(found)}",
                kept="No round was run",
                todo="let the task read only what all have (task > notes, task > template), have the mapping "
                "completed, or leave the domain out (`fedpriv study exclude`)",
            )
        self._shards = given
        self._folder.keep_shard(result.shard, email)

    async def _approval(self, email: str) -> bool:
        """Wait for a data owner's approval; False if the domain is left out."""
        since, known = now(), self._folder.decision(email)
        while known is None or known.decision != "approved":
            if self._courier.is_excluded(email):
                return False
            decision = await self._courier.decision_of(email)
            if decision is not None and decision != known:
                known = decision
                self._folder.keep_decision(decision)
                self._emit(
                    Decided(
                        study=self._courier.study,
                        domain=email,
                        decision=decision.decision,
                        reason=decision.reason,
                        checked=decision.checked,
                    )
                )
            if decision is not None and decision.decision in ("rejected", "revoked"):
                self._leave_out_or_stop(email, f"{decision.decision} the request: {decision.reason}")
                return False
            if decision is None or decision.decision != "approved":
                since = self._courier.say_waiting(since, [email], "approval")
                await asyncio.sleep(_LOOK_SECONDS)
        return True

    def _leave_out_or_stop(self, email: str, reason: str, todo: str = "change the plan and submit a new study") -> None:
        """Go on without a domain if the plan's quorum allows it."""
        plan, active = self._courier.plan, self._courier.active()
        needed = plan.schedule.quorum or plan.schedule.buffer
        has_key = self._folder.keys() is not None or email != plan.key_maker
        if needed is None or len(active) - 1 < needed or not has_key:
            raise StudyError(f"{email} {reason}", kept="Nothing was run there", todo=todo)
        self._folder.exclude(Exclusion(email=email, reason=" ".join(reason.split())[:500]))
