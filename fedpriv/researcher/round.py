"""One round at the researcher: who seals, whose updates are added, what opens their sum, and what people are shown."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fedpriv.aggregation import aggregate_round, factors, shares, verify_round, weights_for
from fedpriv.errors import StudyError, UntrustedError
from fedpriv.protection import combine_unlocks, needs_unlock
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.events import Event, RoundFinished, UpdateReceived
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.study_folder import RoundMembers, StudyFolder, SumMembers
from fedpriv.study import AggregateManifest, BlobRef, Result, SignedUpdate, Ticket
from fedpriv.study.messages import Unlocked
from fedpriv.study.plan import MetricName

Sent = dict[str, tuple[AggregateManifest, BlobRef]]


class RoundRunner:
    """Carries single rounds of a study; every step finds what an earlier run of it left and goes on from there."""

    def __init__(self, folder: StudyFolder, courier: Courier, keys: KeyRelay, emit: Callable[[Event], None]) -> None:
        self.folder, self._courier, self._keys, self._emit = folder, courier, keys, emit
        self.plan, self.study = courier.plan, courier.study

    async def run(self, number: int, prepared: Mapping[str, Result]) -> None:
        """Train, confirm, add: one round from its tickets to its sum.

        Parameters
        ----------
        number : int
            From 1.
        prepared : mapping of str to Result
            The answers to the prepare tickets.

        Raises
        ------
        StudyError
            If a domain refuses or fails.
        """
        started = time.perf_counter()
        fixed = self._fixed(number)
        members = self._members(number, fixed, prepared)
        before = self.folder.manifest(number - 1) if number > 1 else None
        aggregates = await self.send_aggregate(before, members.members)
        keys = await self._keys.send(number, members.members)
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study,
                kind="train",
                round=number,
                attempt=members.attempt,
                member=email,
                members=members.members,
                weight=members.factors[email],
                key=keys.get(email),
                aggregate=aggregates[email][0] if email in aggregates else None,
                aggregate_blob=aggregates[email][1] if email in aggregates else None,
            ),
            fixed or members.members,
            required=bool(fixed),
        )
        require_same_adapter(results)
        manifest, seconds = await self._sum(number, results, members, fixed)
        seconds["wall"] = time.perf_counter() - started
        for email, blob in keys.items():
            await self._courier.remove(email, blob.name)
        await self.remove_aggregate(before, members.members)
        self._summarise(manifest, results, prepared, seconds)

    async def send_aggregate(self, manifest: AggregateManifest | None, members: tuple[str, ...]) -> Sent:
        """Leave a round's sum with its manifest for members; nothing if all have opened it long ago."""
        if manifest is None or not self.folder.aggregate_path(manifest).exists():
            return {}
        data = self.folder.aggregate_path(manifest).read_bytes()
        blobs = await self._courier.send_to_all(self._aggregate_name(manifest), data, members)
        return {email: (manifest, blob) for email, blob in blobs.items()}

    async def remove_aggregate(self, manifest: AggregateManifest | None, members: tuple[str, ...]) -> None:
        """Remove a round's sum from the store after all have taken it."""
        if manifest is not None:
            for email in members:
                await self._courier.remove(email, self._aggregate_name(manifest))

    # -- who takes part --------------------------------------------------------------------------------------------

    def _fixed(self, number: int) -> tuple[str, ...]:
        """Return whose updates must be added, because members were asked to confirm them; nobody if none was yet.

        A domain unlocks updates of one set of members in a round, whatever the attempt: from the first confirm ticket
        on there is no way on without any of them, excluded or not.
        """
        decided = self.folder.sum_members(number)
        return decided[0].members if decided else ()

    def _members(self, number: int, fixed: tuple[str, ...], prepared: Mapping[str, Result]) -> RoundMembers:
        """Return who seals in this attempt of a round, and with which factor; decided once.

        When a round is summed again, the factors stay what they were.
        """
        attempt, known = self._keys.state.generation, self.folder.round_members(number)
        for members in known:
            if members.attempt == attempt:
                return members
        everybody = fixed or self._courier.active()
        if known:
            by_member = {email: known[0].factors[email] for email in everybody}
        else:
            examples = {email: int(metric(prepared[email], "examples")) for email in everybody}
            by_member = factors(weights_for(self.plan.aggregation, examples))
        members = RoundMembers(attempt=attempt, members=tuple(sorted(everybody)), factors=by_member)
        self.folder.keep_round_members(number, members)
        return members

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

    # -- from updates to their sum ---------------------------------------------------------------------------------

    async def _sum(
        self, number: int, results: Mapping[str, Result], members: RoundMembers, fixed: tuple[str, ...]
    ) -> tuple[AggregateManifest, dict[str, float]]:
        seconds = mean_seconds(results)
        manifest = self.folder.manifest(number)
        if manifest is not None:  # a kill interrupted the run before the summary was kept
            return manifest, seconds | {"confirm": 0.0, "aggregate": 0.0}
        fetched = fixed or self._survivors(results)
        paths = dict(zip(fetched, await asyncio.gather(*(self._fetch(results[e]) for e in fetched)), strict=True))
        wanted = fixed or self._survivors({email: results[email] for email in fetched})
        updates = self._verify(number, results, members, wanted)
        self.folder.keep_sum_members(number, SumMembers(attempt=members.attempt, members=wanted))
        started = time.perf_counter()
        unlocked = await self._confirm(number, members.attempt, updates)
        seconds["confirm"] = time.perf_counter() - started
        started = time.perf_counter()
        manifest = await self._courier.in_background(
            lambda: aggregate_round(
                self._keys.public,
                [(update, paths[update.header.member]) for update in updates],
                self.folder.cohort(),
                study=self.study,
                round=number,
                attempt=members.attempt,
                expected_members=wanted,
                weights=members.factors,
                path=self.folder.new_aggregate_path(number, members.attempt),
                unlocked=unlocked,
            )
        )
        self.folder.keep_manifest(manifest)
        seconds["aggregate"] = time.perf_counter() - started
        for path in paths.values():
            path.unlink(missing_ok=True)
        return manifest, seconds

    def _verify(
        self, number: int, results: Mapping[str, Result], members: RoundMembers, wanted: tuple[str, ...]
    ) -> tuple[SignedUpdate, ...]:
        return verify_round(
            self._keys.public,
            [update for email in wanted if (update := results[email].update) is not None],
            self.folder.cohort(),
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
        started = time.perf_counter()
        path = self.folder.round(result.round) / f"{result.member}-{update.header.attempt}.safetensors"
        await self._courier.fetch(result.member, blob, path)
        self._emit(
            UpdateReceived(
                study=self.study,
                domain=result.member,
                round=result.round,
                size_bytes=blob.size_bytes,
                seconds=round(time.perf_counter() - started, 4),
            )
        )
        return path

    def _aggregate_name(self, manifest: AggregateManifest) -> str:
        return f"aggregate-{self.study[:16]}-{manifest.round:04d}-{manifest.attempt}"

    # -- what people are shown -------------------------------------------------------------------------------------

    def _summarise(
        self,
        manifest: AggregateManifest,
        results: Mapping[str, Result],
        prepared: Mapping[str, Result],
        seconds: Mapping[str, float],
    ) -> None:
        number = manifest.round
        weights = {update.header.member: update.header.weight for update in manifest.updates}
        added = {email: results[email] for email in weights if email in results}
        start = {email: prepared[email] for email in added if email in prepared} if number == 1 else added
        sizes = [update.container_bytes for update in manifest.updates]
        event = RoundFinished(
            study=self.study,
            round=number,
            attempt=manifest.attempt,
            train_loss=_mean_train_loss(added.values()),
            heldout_loss=mean_loss(start),
            weights=shares(weights),
            bytes_up=round(sum(sizes) / len(sizes)),
            bytes_down=self.folder.aggregate_path(manifest).stat().st_size,
            parameters=manifest.updates[0].header.parameters,
            seconds={name: round(value, 4) for name, value in seconds.items()},
        )
        self.folder.keep_summary(number, manifest.attempt, event.as_record())
        before = self.folder.manifest(number - 1) if number > 1 else None
        if before is not None:
            self.folder.aggregate_path(before).unlink(missing_ok=True)
        self._emit(event)


def require_same_adapter(results: Mapping[str, Result]) -> str:
    """Return the digest of the adapter that all answers name.

    Raises
    ------
    StudyError
        If they name different ones.
    """
    digests = {result.adapter_sha256 for result in results.values()}
    digest = digests.pop() if len(digests) == 1 else None
    if digest is None:
        raise StudyError(
            "The domains do not hold the same adapter",
            kept="Nothing further was run",
            todo="compare the ledgers: one domain opened another aggregate",
        )
    return digest


def mean_loss(results: Mapping[str, Result]) -> float:
    """Return the held-out loss over all domains' examples: each domain's mean weighted by its tokens."""
    tokens = {email: metric(result, "heldout_tokens") for email, result in results.items()}
    return sum(metric(results[e], "heldout_loss") * n for e, n in tokens.items()) / sum(tokens.values())


def _mean_train_loss(results: Iterable[Result]) -> float | None:
    """Return the training loss over the domains that give one, each weighted by its tokens; None if none does."""
    given = [r.metrics for r in results if "train_loss" in r.metrics]
    tokens = sum(metrics.get("train_tokens", 1.0) for metrics in given)
    return sum(m["train_loss"] * m.get("train_tokens", 1.0) for m in given) / tokens if tokens else None


def metric(result: Result, name: MetricName) -> float:
    """Return a metric that every domain must report, a finite number over zero.

    Raises
    ------
    UntrustedError
        If it is missing, or none.
    """
    value = result.metrics.get(name)
    if value is None or not 0 < value < math.inf:
        raise UntrustedError(f"{result.member} answered without a usable {name}", kept="The round was not aggregated")
    return value


def mean_seconds(results: Mapping[str, Result]) -> dict[str, float]:
    """Return the mean wall clock of each part over the domains."""
    names = sorted({name for result in results.values() for name in result.seconds})
    return {name: sum(r.seconds.get(name, 0.0) for r in results.values()) / len(results) for name in names}
