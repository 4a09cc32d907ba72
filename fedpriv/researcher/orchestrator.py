"""The orchestrator: one asyncio coroutine that carries a study through its rounds and emits events.

Every step is "make sure that": a ticket is the same bytes when it is sent again, results and aggregates lie on disk
before anything is built on them. Starting it again after a kill goes on where it stopped, and no domain trains twice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.aggregation import aggregate_round, weights_for
from fedpriv.errors import StudyError, UntrustedError
from fedpriv.researcher.courier import POLL_SECONDS, Courier
from fedpriv.researcher.events import Decided, Event, RoundFinished, StudyFinished, StudyStarted, UpdateReceived
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import AggregateManifest, BlobRef, RequestDecision, Result, Ticket
from fedpriv.study.plan import MetricName
from fedpriv.training.adapter import adapter_digest, load_state

if TYPE_CHECKING:
    from fedpriv.transport import ResearcherSession


class Orchestrator:
    """Runs one submitted study; the :class:`Courier` does the asking, the orchestrator knows what to ask.

    Parameters
    ----------
    folder : StudyFolder
        The study.
    researcher : Researcher
        Whose study it is; holds signing keys only.
    session : ResearcherSession
        The connection to the cohort.
    emit : Callable[[Event], None]
        Called on the event loop's thread for each event.
    """

    def __init__(
        self, folder: StudyFolder, researcher: Researcher, session: ResearcherSession, emit: Callable[[Event], None]
    ) -> None:
        self.folder = folder
        self.request = folder.submitted()
        self.plan = self.request.plan
        self.study = self.request.study
        self._emit = emit
        self._courier = Courier(folder, self.request, researcher, session, emit)

    async def run(self) -> StudyFinished:
        """Carry the study from its approvals to the opening of the last aggregate.

        Raises
        ------
        StudyError
            If a domain rejects the request, refuses or fails a ticket, or the domains' adapters differ.
        """
        started = time.time()
        resumed = self.folder.record("started") is not None
        self.folder.keep_record("started", {"time_s": started})
        domains = self.plan.emails
        self._emit(StudyStarted(study=self.study, domains=domains, rounds=self.plan.training.rounds, resumed=resumed))
        return await self._courier.with_polling(self._rounds())

    async def wait_for_decisions(self) -> dict[str, RequestDecision]:
        """Wait until every domain approved.

        Raises
        ------
        StudyError
            As soon as one rejects, with its reason.
        """
        return await self._courier.with_polling(self._approvals())

    async def release(self) -> tuple[Path, str]:
        """Fetch the plain adapter from the domains and check that all hand over the same.

        Returns
        -------
        tuple of Path and str
            The safetensors file, and the adapter's digest.

        Raises
        ------
        StudyError
            If a domain does not release it, or two hand over different adapters.
        """
        return await self._courier.with_polling(self._release())

    def close(self) -> None:
        """End the worker threads."""
        self._courier.close()

    # -- the life of a study ----------------------------------------------------------------------------------------

    async def _rounds(self) -> StudyFinished:
        await self._approvals()
        prepared = await self._prepare()
        for number in range(1, self.plan.training.rounds + 1):
            if self.folder.record(f"rounds/{number:04d}/summary") is None:
                await self._round(number, prepared)
        return await self._finish(prepared)

    async def _approvals(self) -> dict[str, RequestDecision]:
        decisions = self.folder.decisions()
        since = time.monotonic()
        while any(decisions.get(e) is None or decisions[e].decision != "approved" for e in self.plan.emails):
            for email in self.plan.emails:
                decision = await self._courier.decision_of(email)
                if decision is not None and decision != decisions.get(email):
                    decisions[email] = decision
                    self.folder.keep_decision(decision)
                    self._emit(
                        Decided(
                            study=self.study,
                            domain=email,
                            decision=decision.decision,
                            reason=decision.reason,
                            checked=decision.checked,
                        )
                    )
                if decision is not None and decision.decision == "rejected":
                    raise StudyError(
                        f"{email} rejected the request: {decision.reason}",
                        kept="Nothing was run",
                        todo="change the plan and submit a new study",
                    )
            since = self._courier.say_waiting(
                since, [e for e in self.plan.emails if not _approved(decisions.get(e))], "approval"
            )
            await asyncio.sleep(POLL_SECONDS)
        return decisions

    async def _prepare(self) -> dict[str, Result]:
        identities = tuple(identity for _, identity in sorted(self.folder.cohort().items()))
        results = await self._courier.ask_all(
            lambda email: Ticket(study=self.study, kind="prepare", round=0, member=email, identities=identities)
        )
        _require_same_adapter(results)
        maker = results[self.plan.key_maker]
        await asyncio.gather(*(self._fetch(maker.member, blob) for blob in maker.key_blobs.values()))
        if maker.public_context_blob is not None:
            await self._fetch(maker.member, maker.public_context_blob)
        return results

    async def _round(self, number: int, prepared: Mapping[str, Result]) -> None:
        started = time.perf_counter()
        examples = {email: int(_metric(result, "examples")) for email, result in prepared.items()}
        weights = weights_for(self.plan.aggregation, examples)
        before = self.folder.manifest(number - 1) if number > 1 else None
        aggregates = await self._send_aggregate(before)
        keys = await self._send_keys(prepared[self.plan.key_maker]) if number == 1 else {}
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study,
                kind="train",
                round=number,
                member=email,
                weight=weights[email],
                key=keys.get(email),
                aggregate=before,
                aggregate_blob=aggregates.get(email),
            )
        )
        _require_same_adapter(results)
        manifest, seconds = await self._aggregate(number, results, weights, prepared[self.plan.key_maker])
        seconds["wall"] = time.perf_counter() - started
        for email, blob in keys.items():
            await self._courier.remove(email, blob.name)
        await self._remove_blobs(before)
        start = prepared if number == 1 else results
        self._summarise(number, results, weights, manifest, seconds, heldout_loss=_mean_loss(start))

    async def _finish(self, prepared: Mapping[str, Result]) -> StudyFinished:
        last = self.plan.training.rounds
        manifest = self.folder.manifest(last)
        aggregates = await self._send_aggregate(manifest)
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study,
                kind="finish",
                round=last,
                member=email,
                aggregate=manifest,
                aggregate_blob=aggregates.get(email),
            )
        )
        digest = _require_same_adapter(results)
        await self._remove_blobs(manifest)
        event = StudyFinished(
            study=self.study,
            loss_before=_mean_loss(prepared),
            loss_after=_mean_loss(results),
            loss_after_by_domain={e: _metric(r, "heldout_loss") for e, r in results.items()},
            heldout_tokens={e: _metric(r, "heldout_tokens") for e, r in results.items()},
            adapter_sha256=digest,
            seconds=_mean_seconds(results),
        )
        if self.folder.record("finished") is None:
            self.folder.keep_record("finished", event.as_record())
            self._emit(event)
        return event

    async def _release(self) -> tuple[Path, str]:
        last = self.plan.training.rounds
        results = await self._courier.ask_all(
            lambda email: Ticket(study=self.study, kind="release", round=last, member=email)
        )
        digest = _require_same_adapter(results)
        path = self.folder.state / "adapter.safetensors"
        for email, result in results.items():
            if result.adapter_blob is None:
                raise UntrustedError(f"{email} released without an adapter", kept="Nothing was written")
            await self._courier.fetch(email, result.adapter_blob, path)
            if adapter_digest(load_state(path)) != digest:
                raise UntrustedError(f"{email} released another adapter than it said", kept="Nothing was written")
        return path, digest

    # -- one round's parts ------------------------------------------------------------------------------------------

    async def _aggregate(
        self, number: int, results: Mapping[str, Result], weights: Mapping[str, float], maker: Result
    ) -> tuple[AggregateManifest, dict[str, float]]:
        manifest = self.folder.manifest(number)
        paths = await asyncio.gather(*(self._fetch_update(email, result) for email, result in results.items()))
        started = time.perf_counter()
        if manifest is None:
            updates = [
                (r.update, path) for r, path in zip(results.values(), paths, strict=True) if r.update is not None
            ]
            public = b""
            if maker.public_context_blob is not None:
                public = self._blob_path(maker.public_context_blob).read_bytes()
            manifest = await self._courier.in_background(
                lambda: aggregate_round(
                    public,
                    self.plan.protection.level,
                    updates,
                    self.folder.cohort(),
                    study=self.study,
                    round=number,
                    attempt=1,
                    expected_members=self.plan.emails,
                    weights=weights,
                    path=self.folder.aggregate_path(number),
                )
            )
            self.folder.keep_manifest(manifest)
        seconds = _mean_seconds(results) | {"aggregate": time.perf_counter() - started}
        for path in paths:
            path.unlink(missing_ok=True)
        return manifest, seconds

    async def _fetch_update(self, email: str, result: Result) -> Path:
        if result.update is None or result.update_blob is None:
            raise StudyError(f"{email} answered without an update", kept="The round was not aggregated")
        started = time.perf_counter()
        path = self.folder.round(result.round) / f"{email}.safetensors"
        if self.folder.manifest(result.round) is None:
            await self._courier.fetch(email, result.update_blob, path)
        seconds = time.perf_counter() - started
        size = result.update_blob.size_bytes
        self._emit(
            UpdateReceived(
                study=self.study, domain=email, round=result.round, size_bytes=size, seconds=round(seconds, 4)
            )
        )
        return path

    async def _send_aggregate(self, manifest: AggregateManifest | None) -> dict[str, BlobRef]:
        if manifest is None:
            return {}
        data = self.folder.aggregate_path(manifest.round).read_bytes()
        return await self._courier.send_to_all(self._aggregate_name(manifest), data)

    async def _send_keys(self, maker: Result) -> dict[str, BlobRef]:
        """Relay the sealed study key to the members; to us it is noise."""
        sent = {}
        for email, blob in maker.key_blobs.items():
            data = self._blob_path(blob).read_bytes()
            sent[email] = await self._courier.send(email, blob.name, data)
        return sent

    async def _remove_blobs(self, manifest: AggregateManifest | None) -> None:
        if manifest is not None:
            for email in self.plan.emails:
                await self._courier.remove(email, self._aggregate_name(manifest))

    def _aggregate_name(self, manifest: AggregateManifest) -> str:
        return f"aggregate-{self.study[:16]}-{manifest.round:04d}"

    def _summarise(
        self,
        number: int,
        results: Mapping[str, Result],
        weights: Mapping[str, float],
        manifest: AggregateManifest,
        seconds: Mapping[str, float],
        *,
        heldout_loss: float,
    ) -> None:
        tokens = {e: r.metrics.get("train_tokens", 1.0) for e, r in results.items()}
        losses = {e: r.metrics.get("train_loss", 0.0) for e, r in results.items()}
        sizes = [update.container_bytes for update in manifest.updates]
        event = RoundFinished(
            study=self.study,
            round=number,
            train_loss=sum(losses[e] * tokens[e] for e in losses) / sum(tokens.values()),
            heldout_loss=heldout_loss,
            weights=dict(weights),
            bytes_up=round(sum(sizes) / len(sizes)),
            bytes_down=self.folder.aggregate_path(number).stat().st_size,
            parameters=manifest.updates[0].header.parameters,
            seconds={name: round(value, 4) for name, value in seconds.items()},
        )
        self.folder.keep_record(f"rounds/{number:04d}/summary", event.as_record())
        if number > 1:
            self.folder.aggregate_path(number - 1).unlink(missing_ok=True)
        self._emit(event)

    async def _fetch(self, email: str, blob: BlobRef) -> Path:
        return await self._courier.fetch(email, blob, self._blob_path(blob))

    def _blob_path(self, blob: BlobRef) -> Path:
        return self.folder.state / "blobs" / blob.name


def _approved(decision: RequestDecision | None) -> bool:
    return decision is not None and decision.decision == "approved"


def _require_same_adapter(results: Mapping[str, Result]) -> str:
    digests = {result.adapter_sha256 for result in results.values()}
    digest = digests.pop() if len(digests) == 1 else None
    if digest is None:
        raise StudyError(
            "The domains do not hold the same adapter",
            kept="Nothing further was run",
            todo="compare the ledgers: one domain opened another aggregate",
        )
    return digest


def _mean_loss(results: Mapping[str, Result]) -> float:
    """Return the held-out loss over all domains' examples: each domain's mean weighted by its tokens."""
    tokens = {email: _metric(result, "heldout_tokens") for email, result in results.items()}
    return sum(_metric(results[e], "heldout_loss") * n for e, n in tokens.items()) / sum(tokens.values())


def _metric(result: Result, name: MetricName) -> float:
    """Return a metric that every domain must report, a finite number over zero."""
    value = result.metrics.get(name)
    if value is None or not 0 < value < math.inf:
        raise UntrustedError(f"{result.member} answered without a usable {name}", kept="The round was not aggregated")
    return value


def _mean_seconds(results: Mapping[str, Result]) -> dict[str, float]:
    names = sorted({name for result in results.values() for name in result.seconds})
    return {name: sum(r.seconds.get(name, 0.0) for r in results.values()) / len(results) for name in names}
