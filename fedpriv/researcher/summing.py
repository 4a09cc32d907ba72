"""From the updates of a round's members to their sum: have them sealed, fetch, confirm, add; each step once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from fedpriv.aggregation import aggregate_round, verify_round
from fedpriv.errors import StudyError
from fedpriv.protection import combine_unlocks, needs_unlock
from fedpriv.protection.sizes import most_bytes_of_key
from fedpriv.protection.study_key import read_parameters
from fedpriv.researcher.catching_up import CatchingUp
from fedpriv.researcher.courier import Courier, now
from fedpriv.researcher.events import DomainMissed, Event, UpdateReceived
from fedpriv.researcher.gathering import Asking, Gathered, gather
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.minimum import Minimum
from fedpriv.researcher.records import RoundMembers, SumMembers
from fedpriv.researcher.steering import SteeringFile
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import AggregateManifest, Result, SignedUpdate, Ticket
from fedpriv.study.messages import Unlocked


class Summing:
    """Sums one round at a time; every step finds what an earlier run of it left and goes on from there."""

    def __init__(
        self,
        folder: StudyFolder,
        courier: Courier,
        keys: KeyRelay,
        catching_up: CatchingUp,
        emit: Callable[[Event], None],
    ) -> None:
        self._folder, self._courier, self._keys, self._emit = folder, courier, keys, emit
        self._minimum = Minimum(folder, courier)
        self._catching_up, self._steering = catching_up, SteeringFile(folder.state)
        self._fetched: set[Path] = set()  # whose arrival was told
        self.plan, self.study = courier.plan, courier.study

    def fixed(self, number: int) -> tuple[str, ...]:
        """Return whose updates must be added, because members were asked to confirm them; nobody if none was yet.

        A domain unlocks updates of one set of members in a round, whatever the attempt: from the first confirm ticket
        on there is no way on without any of them, excluded or not.
        """
        decided = self._folder.sum_members(number)
        return decided[0].members if decided else ()

    async def seal(self, number: int, members: RoundMembers) -> dict[str, Result]:
        """Have the members of a round seal what they trained, among themselves.

        Returns
        -------
        dict of str to Result
            By address; without those who went quiet, if more than half are left.

        Raises
        ------
        StudyError
            If too few do.
        """
        fixed = self.fixed(number)

        def ask(email: str) -> Ticket:
            return Ticket(
                study=self.study,
                kind="seal",
                round=number,
                attempt=members.attempt,
                member=email,
                members=members.members,
                weight=members.factors[email],
                trained=members.trained.get(email),
                bits=members.bits,
            )

        work = {email: self.ask(ask(email), required=bool(fixed)) for email in fixed or members.members}
        majority = max(2, len(members.members) // 2 + 1)
        majority = max(majority, min(self._minimum.of(members.members), len(members.members)))
        return self.settle(number, await self.gather(work, enough=None if fixed else majority), need=majority)

    async def ask(self, ticket: Ticket, *, required: bool) -> Result | None:
        """Ask a domain as :meth:`CatchingUp.ask`, and fetch what it sealed while others are still at work."""
        result = await self._catching_up.ask(ticket, after=ticket.round - 1, required=required)
        is_summed = self._folder.manifest(ticket.round) is not None  # before a kill: then its blob is gone
        if result is not None and result.status == "done" and result.update is not None and not is_summed:
            await self._fetch(result)
        return result

    async def gather(self, work: Mapping[str, Asking], *, enough: int | None) -> Gathered:
        """Wait for answers as long as the steering or the plan says, see :mod:`fedpriv.researcher.gathering`."""
        return await gather(
            work,
            enough=lambda: enough,
            patience_s=lambda: self._steering.read().patience_s or self.plan.schedule.patience_s,
            last_sign=self._courier.last_sign,
        )

    def settle(self, number: int, gathered: Gathered, *, need: int) -> dict[str, Result]:
        """Return the answers of those who did it; say who is missed, or stop if they are too few.

        Raises
        ------
        StudyError
            If fewer than ``need`` did, or one retired the key.
        """
        failed = gathered.failed
        if failed and (len(gathered.done) < need or any(result.retired_key for result in failed)):
            self._courier.stop(failed)
        reasons = {result.member: result.reason for result in failed}
        for email in gathered.silent:
            self._courier.give_up(email)
        reasons |= {email: f"no sign of life for {seconds:.0f} s" for email, seconds in gathered.silent.items()}
        for email, reason in sorted(reasons.items()):
            carried = self.plan.schedule.late_updates == "carry"
            self._emit(DomainMissed(study=self.study, domain=email, round=number, reason=reason, carried=carried))
        return gathered.done

    async def sum(
        self, number: int, results: Mapping[str, Result], members: RoundMembers
    ) -> tuple[AggregateManifest, dict[str, float]]:
        """Add the sealed updates of a round up, after their members have confirmed exactly these.

        Parameters
        ----------
        results : mapping of str to Result
            The answers with the updates, by address.
        members : RoundMembers
            Among whom they were sealed.

        Returns
        -------
        tuple of AggregateManifest and dict of str to float
            What was added, and the seconds of ``confirm`` and ``aggregate``.

        Raises
        ------
        StudyError
            If fewer than two updates are left.
        SignatureError, UntrustedError, ContainerError
            If one is not what its member signed.
        """
        manifest = self._folder.manifest(number)
        if manifest is not None:  # a kill interrupted the run before the summary was kept
            return manifest, {"confirm": 0.0, "aggregate": 0.0}
        fixed = self.fixed(number)
        fetched = fixed or self._survivors(results)
        paths = dict(zip(fetched, await asyncio.gather(*(self._fetch(results[e]) for e in fetched)), strict=True))
        wanted = fixed or self._survivors({email: results[email] for email in fetched})
        if not fixed:  # from here on the sum is of these, whatever comes
            await self._minimum.require(number, wanted)
        updates = self._verify(number, results, members, wanted)
        self._folder.keep_sum_members(number, SumMembers(attempt=members.attempt, members=wanted))
        started = now()
        unlocked = await self._confirm(number, members.attempt, updates)
        seconds = {"confirm": now() - started}
        started = now()
        manifest = await self._courier.in_background(
            lambda: aggregate_round(
                self._keys.public,
                [(update, paths[update.header.member]) for update in updates],
                self._courier.cohort,
                study=self.study,
                round=number,
                attempt=members.attempt,
                expected_members=wanted,
                weights=members.factors,
                path=self._folder.new_aggregate_path(number, members.attempt),
                unlocked=unlocked,
            )
        )
        self._folder.keep_manifest(manifest)
        seconds["aggregate"] = now() - started
        for path in paths.values():
            path.unlink(missing_ok=True)
        return manifest, seconds

    def _survivors(self, results: Mapping[str, Result]) -> tuple[str, ...]:
        """Return the members that sealed and are not excluded."""
        survivors = tuple(email for email in self._courier.active() if email in results)
        if len(survivors) < 2:
            raise StudyError(
                "Fewer than two domains sealed an update in this round",
                kept="Nothing was added; the rounds before are kept",
                todo="make a new study with other domains",
            )
        return survivors

    def _verify(
        self, number: int, results: Mapping[str, Result], members: RoundMembers, wanted: tuple[str, ...]
    ) -> tuple[SignedUpdate, ...]:
        return verify_round(
            self._keys.public,
            [update for email in wanted if (update := results[email].update) is not None],
            self._courier.cohort,
            study=self.study,
            round=number,
            attempt=members.attempt,
            expected_members=wanted,
            weights=members.factors,
        )

    async def _confirm(self, number: int, attempt: int, updates: tuple[SignedUpdate, ...]) -> Unlocked:
        """Show every member of the sum exactly what will be added, and combine what they give to open it.

        All of them are needed, excluded or not: a member unlocks one set of members a round.
        """
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study, kind="confirm", round=number, attempt=attempt, member=email, updates=updates
            ),
            [update.header.member for update in updates],
            required=True,
        )
        if not needs_unlock(self.plan.protection):
            return Unlocked()
        return combine_unlocks(updates, {e: r.unlock for e, r in results.items() if r.unlock is not None})

    async def _fetch(self, result: Result) -> Path:
        update, blob = result.update, result.update_blob
        if update is None or blob is None or blob.sha256 != update.container_sha256:
            raise StudyError(f"{result.member} answered without its update", kept="The round was not aggregated")
        started = now()
        path = self._folder.round(result.round) / f"{result.member}-{update.header.attempt}.safetensors"
        most = most_bytes_of_key(read_parameters(self._keys.public), update.header.round, update.header.bits)
        await self._courier.fetch(result.member, blob, path, max_bytes=most)
        if path not in self._fetched:
            self._fetched.add(path)
            self._emit(
                UpdateReceived(
                    study=self.study,
                    domain=result.member,
                    round=result.round,
                    size_bytes=blob.size_bytes,
                    seconds=round(now() - started, 4),
                )
            )
        return path
