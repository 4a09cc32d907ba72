"""Buffered asynchronous rounds (FedBuff): domains train at their own pace; the first that are ready make a sum.

Source: Nguyen et al. 2022, *Federated Learning with Buffered Asynchronous Aggregation* (arXiv 2106.06639). Masks cancel
only among those who seal together, so a domain keeps what it trained until it is known who is in the buffer with it:
it then seals among exactly these. An update is in one buffer at most, which its domain sees to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from fedpriv.errors import StudyError
from fedpriv.researcher.admission import Admission
from fedpriv.researcher.answers import require_same_adapter
from fedpriv.researcher.courier import now
from fedpriv.researcher.events import DomainMissed, RoundStarted
from fedpriv.researcher.minimum import Minimum
from fedpriv.researcher.records import AskedMembers, Exclusion, RoundMembers
from fedpriv.researcher.round import RoundParts
from fedpriv.researcher.round_summary import RoundSummary
from fedpriv.study import AggregateManifest, Result, Ticket

_LOOK_SECONDS = 1.0


class BufferedRounds:
    """Keeps every domain training, and makes a sum of the first updates that are ready.

    Where each domain is stands on disk: the round of its train ticket, whose answer is kept as every answer is.
    """

    def __init__(self, parts: RoundParts, admission: Admission) -> None:
        self._parts, self._admission = parts, admission
        self._folder, self._courier, self._emit = parts.folder, parts.courier, parts.emit
        self._summary = RoundSummary(parts.folder, parts.emit)
        self._minimum = Minimum(parts.folder, parts.courier)
        self._training: dict[str, asyncio.Task[Result | None]] = {}
        self._ready: dict[str, Result] = {}  # in the order in which they became ready
        self.plan, self.study = parts.courier.plan, parts.courier.study

    async def run(self, number: int, attempt: int) -> None:
        """Fill one buffer and sum it, while the other domains go on training.

        Parameters
        ----------
        number : int
            Of the sum, from 1; the same numbers as rounds.
        attempt : int
            The generation of the study key.

        Raises
        ------
        StudyError
            If too few domains are left to fill it.
        """
        started = now()
        members = await self._fill(number, attempt)
        trained = {email: self._ready[email] for email in members.members}
        sealing = asyncio.create_task(self._seal_and_sum(number, members))
        try:
            while not sealing.done():
                self._keep_training(number, attempt)
                await asyncio.wait({sealing}, timeout=_LOOK_SECONDS)
        finally:
            sealing.cancel()
        sealed, manifest, seconds = sealing.result()
        seconds["wall"] = now() - started
        self._forget(update.header.member for update in manifest.updates)
        self._parts.catching_up.forget(number)
        self._summary.keep(manifest, trained, sealed, self._admission.prepared, seconds)

    def skip(self, number: int) -> None:
        """Have those who were in a buffer that is never summed train anew: what they confirmed is spent."""
        self._forget(email for members in self._folder.round_members(number) for email in members.members)

    async def close(self) -> None:
        """Stop waiting for those who train; their answers are found by the next run."""
        for task in self._training.values():
            task.cancel()
        await asyncio.gather(*self._training.values(), return_exceptions=True)

    async def _seal_and_sum(
        self, number: int, members: RoundMembers
    ) -> tuple[dict[str, Result], AggregateManifest, dict[str, float]]:
        sealed = await self._parts.summing.seal(number, members)
        require_same_adapter(sealed)
        manifest, seconds = await self._parts.summing.sum(number, sealed, members)
        return sealed, manifest, seconds

    async def _fill(self, number: int, attempt: int) -> RoundMembers:
        """Return who is in the buffer, decided once, after waiting until enough are ready.

        It is decided again where all who were asked to seal refused, as too few for a data owner.
        """
        if not self._parts.summing.fixed(number) and self._minimum.was_refused(number, attempt):
            self._folder.forget_round_members(number, attempt)
        known = self._folder.round_members(number)
        decided = next((members for members in known if members.attempt == attempt), None)
        wanted = known[0].members if known else None
        while True:
            self._keep_training(number, attempt)
            active = self._courier.active()
            need = min(max(self.plan.schedule.buffer or 2, self._minimum.of(active)), len(active))
            if wanted is not None:
                group = [email for email in wanted if email in self._ready]
                full = len(group) == len(wanted)
            else:
                group = [email for email in self._ready if email in self._courier.active()][:need]
                full = len(group) >= max(2, need)
            if full:
                break
            await self._look()
        if decided is not None:
            return decided
        if not known:
            await self._minimum.require(number, group)
        trained = {email: self._ready[email].round for email in group}
        if known:
            by_member, bits = known[0].factors, known[0].bits
        else:
            results = {email: self._ready[email] for email in sorted(group)}
            by_member = self._parts.weighing.factors(number, results, self._admission.prepared, trained)
            bits = self._parts.weighing.bits(number, tuple(sorted(group)), results, self._parts.keys.public)
        members = RoundMembers(
            attempt=attempt,
            members=tuple(sorted(group)),
            factors=by_member,
            trained=dict(sorted(trained.items())),
            bits=bits,
        )
        self._folder.keep_round_members(number, members)
        return members

    def _keep_training(self, number: int, attempt: int) -> None:
        """Have every domain train that has nothing to give; take the answers of those who are done."""
        self._admission.look()
        for email in self._courier.active():
            if email in self._admission.prepared and email not in self._ready and email not in self._training:
                self._training[email] = asyncio.create_task(self._train(email, number, attempt))
        for email, task in list(self._training.items()):
            if task.done():
                del self._training[email]
                self._take(email, task.result())

    def _take(self, email: str, result: Result | None) -> None:
        if result is None:
            return
        if result.status == "done":
            self._ready[email] = result
            return
        if result.retired_key or len(self._courier.active()) - 1 < (self.plan.schedule.buffer or 2):
            self._courier.stop([result])
        self._emit(
            DomainMissed(study=self.study, domain=email, round=result.round, reason=result.reason, carried=False)
        )
        self._folder.exclude(Exclusion(email=email, reason=result.reason[:500]))

    async def _train(self, email: str, number: int, attempt: int) -> Result | None:
        """Have a domain train from the newest adapter, or hear of the training that it was at before."""
        round_number = self._trained(email, attempt) or self._newest_round(number)
        self._keep_trained(email, round_number, attempt)
        if self._folder.asked(round_number, attempt) is None:
            asked = AskedMembers(attempt=attempt, members=(email,))
            self._folder.keep_asked(round_number, asked)
            self._emit(RoundStarted(study=self.study, round=round_number, attempt=attempt, domains=(email,), steps={}))
        ticket = Ticket(study=self.study, kind="train", round=round_number, attempt=attempt, member=email)
        return await self._parts.catching_up.ask(ticket, after=round_number - 1)

    def _newest_round(self, number: int) -> int:
        """Return the round after the newest sum; beyond the last buffer nothing is trained for."""
        is_over = self._folder.manifest(number) is not None or self._folder.is_skipped(number)
        return min(number + 1 if is_over else number, self.plan.training.rounds)

    def _forget(self, members: Iterable[str]) -> None:
        """Note that what these had trained is used."""
        for email in members:
            self._ready.pop(email, None)
            self._keep_trained(email, 0)

    def _keep_trained(self, email: str, round_number: int, attempt: int = 0) -> None:
        self._folder.keep_record(f"training/{email}", {"round": round_number, "attempt": attempt})

    def _trained(self, email: str, attempt: int) -> int:
        """Return the round of the train ticket that a domain was sent last, or 0 if its update was summed."""
        record = self._folder.record(f"training/{email}") or {}
        return int(record.get("round", 0)) if record.get("attempt") == attempt else 0

    async def _look(self) -> None:
        if not self._training and not self._ready and not self._admission.prepared:
            raise StudyError("No domain is left to train", kept="The finished rounds are kept")
        tasks: Mapping[str, asyncio.Task[Result | None]] = self._training
        if tasks:
            await asyncio.wait(tasks.values(), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_LOOK_SECONDS)
