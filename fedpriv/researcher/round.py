"""One synchronous round: who trains and how long, who is late, whose updates are summed, and what people are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedpriv.errors import StudyError
from fedpriv.researcher.answers import require_same_adapter
from fedpriv.researcher.catching_up import CatchingUp
from fedpriv.researcher.courier import Courier, now
from fedpriv.researcher.events import Event, RoundStarted
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.minimum import Minimum
from fedpriv.researcher.records import AskedMembers, RoundMembers
from fedpriv.researcher.round_summary import RoundSummary
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.researcher.summing import Summing
from fedpriv.researcher.weighing import Weighing
from fedpriv.study import Result, Ticket


@dataclass(frozen=True, kw_only=True)
class RoundParts:
    """What rounds of either mode are carried by."""

    folder: StudyFolder
    courier: Courier
    keys: KeyRelay
    catching_up: CatchingUp
    weighing: Weighing
    summing: Summing
    emit: Callable[[Event], None]


class RoundRunner:
    """Carries single rounds of a study; every step finds what an earlier run of it left and goes on from there.

    Where the weights are known beforehand, domains seal as soon as they have trained. Where they come from the round's
    losses, all train first, and then seal among those who have.
    """

    def __init__(self, parts: RoundParts) -> None:
        self._parts = parts
        self._folder, self._courier, self._emit = parts.folder, parts.courier, parts.emit
        self._summary = RoundSummary(parts.folder, parts.emit)
        self._minimum = Minimum(parts.folder, parts.courier)
        self._newest: dict[str, Result] = {}  # each domain's last answer to a train ticket
        self._update_bytes = 0
        self.plan, self.study = parts.courier.plan, parts.courier.study

    async def run(self, number: int, attempt: int, prepared: Mapping[str, Result]) -> None:
        """Train, weigh, seal, confirm, add: one round from its tickets to its sum.

        Parameters
        ----------
        number : int
            From 1.
        attempt : int
            The generation of the study key.
        prepared : mapping of str to Result
            The answers to the prepare tickets of those who take part.

        Raises
        ------
        StudyError
            If fewer domains than the plan wants do their part.
        """
        started = now()
        fixed = self._parts.summing.fixed(number)
        asked = await self._ask(number, attempt, fixed, prepared)
        members = None if self._parts.weighing.needs_losses else self._members(number, asked, asked.members, prepared)
        results = await self._train(number, asked, members, fixed)
        self._newest |= results
        require_same_adapter(results)
        sealed = results
        if members is None:
            who = fixed or tuple(sorted(results))
            await self._require(number, asked.attempt, who)
            members = self._members(number, asked, who, prepared, results)
            sealed = await self._parts.summing.seal(number, members)
        manifest, seconds = await self._parts.summing.sum(number, sealed, members)
        seconds["wall"] = now() - started
        self._update_bytes = max(update.container_bytes for update in manifest.updates)
        self._parts.catching_up.forget(number)
        self._summary.keep(manifest, results, sealed, prepared, seconds)

    def need(self) -> int:
        """Return how many updates a round must have: the quorum, or one of each domain that is not excluded.

        As many as a data owner wants, too, where there are so many.
        """
        active = self._courier.active()
        quorum = self.plan.schedule.quorum
        return len(active) if quorum is None else min(max(quorum, self._minimum.of(active)), len(active))

    async def _ask(
        self, number: int, attempt: int, fixed: tuple[str, ...], prepared: Mapping[str, Result]
    ) -> AskedMembers:
        """Return who is asked to train in this attempt of a round, and for how many steps; decided once.

        Where all who were asked to seal refused, as too few, it is decided again once there are more.
        """
        asked = self._folder.asked(number, attempt)
        if asked is not None and not fixed and self._minimum.was_refused(number, attempt):
            sealing = next(
                (m.members for m in self._folder.round_members(number) if m.attempt == attempt), asked.members
            )
            if set(sealing) < set(self._present(prepared)):
                self._folder.forget_round_members(number, attempt)
                asked = None
        if asked is None:
            members = fixed or self._present(prepared)
            await self._require(number, attempt, members)
            asked = self._fit(number, attempt, tuple(sorted(members)))
            self._folder.keep_asked(number, asked)
            self._emit(
                RoundStarted(
                    study=self.study,
                    round=number,
                    attempt=attempt,
                    domains=asked.members,
                    steps=asked.steps,
                    bits=asked.bits,
                )
            )
        return asked

    async def _require(self, number: int, attempt: int, members: tuple[str, ...]) -> None:
        """Stop before so few seal that a data owner refuses; whoever seals already, or confirmed, is gone on with."""
        known = any(decided.attempt == attempt for decided in self._folder.round_members(number))
        if not known and not self._parts.summing.fixed(number):
            await self._minimum.require(number, members)

    def _fit(self, number: int, attempt: int, members: tuple[str, ...]) -> AskedMembers:
        """Return the steps and bits of a round; those of its first attempt when it is summed again."""
        earlier, fit = self._folder.asked(number, attempt - 1), self._parts.weighing
        if earlier is not None:
            return AskedMembers(attempt=attempt, members=members, steps=earlier.steps, bits=earlier.bits)
        return AskedMembers(
            attempt=attempt,
            members=members,
            steps=fit.steps(members, self._newest, self._update_bytes),
            bits=fit.bits(number, members, self._newest, self._parts.keys.public),
        )

    def _present(self, prepared: Mapping[str, Result]) -> tuple[str, ...]:
        """Return the domains that can be asked; those that are away too, where there are too few without them."""
        able = tuple(email for email in self._courier.active() if email in prepared)
        present = tuple(email for email in able if not self._courier.is_away(email))
        return present if len(present) >= self.need() else able

    def _members(
        self,
        number: int,
        asked: AskedMembers,
        who: tuple[str, ...],
        prepared: Mapping[str, Result],
        results: Mapping[str, Result] | None = None,
    ) -> RoundMembers:
        """Return who seals in this attempt of a round, and with which factor; decided once.

        When a round is summed again, the factors stay what they were.
        """
        known = self._folder.round_members(number)
        for members in known:
            if members.attempt == asked.attempt:
                return members
        if known and set(who) <= set(known[0].factors):
            by_member = {email: known[0].factors[email] for email in who}
        else:
            by_member = self._parts.weighing.factors(number, {e: (results or prepared)[e] for e in who}, prepared)
        members = RoundMembers(attempt=asked.attempt, members=tuple(sorted(who)), factors=by_member, bits=asked.bits)
        self._folder.keep_round_members(number, members)
        return members

    async def _train(
        self, number: int, asked: AskedMembers, members: RoundMembers | None, fixed: tuple[str, ...]
    ) -> dict[str, Result]:
        """Have the domains train, and seal at once where the members' factors are known."""

        def ask(email: str) -> Ticket:
            return Ticket(
                study=self.study,
                kind="train",
                round=number,
                attempt=asked.attempt,
                member=email,
                members=members.members if members else (),
                weight=members.factors[email] if members else None,
                steps=asked.steps.get(email),
                bits=asked.bits if members else None,
            )

        work = {email: self._parts.summing.ask(ask(email), required=bool(fixed)) for email in fixed or asked.members}
        quorum = None if fixed or self.plan.schedule.quorum is None else min(self.need(), len(work))
        gathered = await self._parts.summing.gather(work, enough=quorum)
        results = self._parts.summing.settle(number, gathered, need=quorum or len(work))
        if len(results) < 2:
            raise StudyError(
                "Fewer than two domains trained in this round",
                kept="Nothing was added; the rounds before are kept",
                todo="start the domains' services again and run `fedpriv study resume`, or make a new study",
            )
        return results
