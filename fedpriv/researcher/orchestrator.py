"""The orchestrator: one asyncio coroutine that carries a study through its rounds and emits events.

Every step is "make sure that": a ticket is the same bytes when it is sent again, results and aggregates lie on disk
before anything is built on them. Starting it again after a kill goes on where it stopped, and no domain trains twice.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fedpriv.aggregation import WeightFunction
from fedpriv.errors import StoppedError, StudyError, UntrustedError, quoted
from fedpriv.protection import open_signed
from fedpriv.researcher.admission import Admission
from fedpriv.researcher.answers import mean_loss, mean_seconds, metric, quality, require_same_adapter
from fedpriv.researcher.buffered import BufferedRounds
from fedpriv.researcher.catching_up import CatchingUp
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.events import Event, Paused, RoundSkipped, StudyFinished, StudyStarted, Unpaused
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.round import RoundParts, RoundRunner
from fedpriv.researcher.steering import SteeringFile
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.researcher.summing import Summing
from fedpriv.researcher.weighing import Weighing
from fedpriv.study import Consent, RequestDecision, Result, Ticket
from fedpriv.training.adapter import MAX_ADAPTER_BYTES, adapter_digest, load_state

_STEERING_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Release:
    """A released adapter.

    Attributes
    ----------
    path : Path
        The plain adapter (safetensors).
    adapter_sha256 : str
        Its digest, which every domain that handed it over named.
    consents : dict of str to Consent
        What each domain signed, by address.
    refused : dict of str to str
        The reasons of the others.
    """

    path: Path
    adapter_sha256: str
    consents: dict[str, Consent]
    refused: dict[str, str]


class Orchestrator:
    """Runs one submitted study; the :class:`Courier` does the asking, the orchestrator knows what to ask.

    Parameters
    ----------
    folder : StudyFolder
        The study.
    courier : Courier
        The way to its cohort.
    emit : Callable[[Event], None]
        Called on the event loop's thread for each event.
    weights : WeightFunction, optional
        The rule of a plan whose weights are custom.
    """

    def __init__(
        self,
        folder: StudyFolder,
        courier: Courier,
        emit: Callable[[Event], None],
        weights: WeightFunction | None = None,
    ) -> None:
        self.folder = folder
        self.request = folder.submitted()
        self.plan = self.request.plan
        self.study = self.request.study
        self._emit = emit
        self._steering = SteeringFile(folder.state)
        self._courier = courier
        self._keys = KeyRelay(folder, self._courier, emit)
        self._catching_up = CatchingUp(folder, self._courier, self._keys, emit)
        self._parts = RoundParts(
            folder=folder,
            courier=self._courier,
            keys=self._keys,
            catching_up=self._catching_up,
            weighing=Weighing(folder, self._courier, emit, weights),
            summing=Summing(folder, self._courier, self._keys, self._catching_up, emit),
            emit=emit,
        )

    async def run(self) -> StudyFinished:
        """Carry the study from its approvals to the opening of the last aggregate.

        Raises
        ------
        StudyError
            If a domain rejects the request, refuses or fails a ticket, or the domains' adapters differ.
        StoppedError
            If it was asked to stop.
        """
        started = time.time()
        resumed = self.folder.record("started") is not None
        self.folder.keep_record("started", {"time_s": started})
        domains = self.folder.active(self.plan.emails)
        self._emit(StudyStarted(study=self.study, domains=domains, rounds=self.plan.training.rounds, resumed=resumed))
        return await self._courier.with_polling(self._rounds(), self._until_stopped())

    async def wait_for_decisions(self) -> dict[str, RequestDecision]:
        """Wait until every domain approved.

        Raises
        ------
        StudyError
            As soon as one rejects, with its reason.
        """
        return await self._courier.with_polling(self._admission().approvals())

    async def release(self) -> Release:
        """Ask the data owners, wait for their decisions, and fetch the plain adapter from those who hand it over.

        Raises
        ------
        StudyError
            If nobody hands it over, or two hand over different adapters.
        """
        return await self._courier.with_polling(self._release())

    async def ping(self, times: int = 1) -> dict[str, list[float]]:
        """Ask every domain for an answer and nothing else, so many times; return the seconds by address."""
        return await self._courier.with_polling(self._ping(times))

    def close(self) -> None:
        """End the worker threads."""
        self._courier.close()

    # -- the life of a study ----------------------------------------------------------------------------------------

    def _admission(self) -> Admission:
        return Admission(self.folder, self._courier, self._keys, self._emit)

    async def _rounds(self) -> StudyFinished:
        admission, whole = self._admission(), RoundRunner(self._parts)
        buffered = BufferedRounds(self._parts, admission)
        try:
            await admission.open(whole.need)
            await self._keys.renew()
            for number in range(1, self.plan.training.rounds + 1):
                if self.folder.is_finished(number):
                    continue
                await self._may_begin(number)
                await admission.open(whole.need)
                attempt = self._keys.state.generation
                if self.plan.schedule.is_buffered:
                    work = buffered.run(number, attempt)
                else:
                    work = whole.run(number, attempt, admission.prepared)
                if await self._is_skipped(number, work):
                    buffered.skip(number)
                    self.folder.keep_skipped(number)
                    self._emit(RoundSkipped(study=self.study, round=number))
            return await self._finish(admission.prepared)
        finally:
            await buffered.close()
            await admission.close()

    async def _may_begin(self, number: int) -> None:
        """Wait while the study is paused, unless this round was begun before."""
        begun = self.folder.asked(number, self._keys.state.generation) is not None
        if begun or self._steering.read().lets_begin(number):
            return
        self._emit(Paused(study=self.study, round=number))
        while not self._steering.read().lets_begin(number):
            await asyncio.sleep(_STEERING_SECONDS)
        self._emit(Unpaused(study=self.study, round=number))

    async def _is_skipped(self, number: int, work: Coroutine[Any, Any, None]) -> bool:
        """Carry a round to its end; return whether it was asked to be skipped before it was summed, and was left."""
        carried = asyncio.ensure_future(work)
        try:
            while not carried.done():
                if self._steering.read().skipped_round == number and self.folder.manifest(number) is None:
                    return True
                await asyncio.wait({carried}, timeout=_STEERING_SECONDS)
            carried.result()  # raises what went wrong
            return False
        finally:
            carried.cancel()
            await asyncio.gather(carried, return_exceptions=True)

    async def _until_stopped(self) -> NoReturn:
        while not self._steering.read().stopped:
            await asyncio.sleep(_STEERING_SECONDS)
        raise StoppedError(
            "The study was asked to stop",
            kept="All that was done is kept",
            todo="run `fedpriv study resume` to go on where it stopped",
        )

    async def _finish(self, prepared: Mapping[str, Result]) -> StudyFinished:
        last = self.plan.training.rounds
        members = [email for email in self._courier.active() if email in prepared]
        attempt = self._keys.state.generation
        work = {
            email: self._catching_up.ask(
                Ticket(study=self.study, kind="finish", round=last, attempt=attempt, member=email), after=last
            )
            for email in members
        }
        quorum = self.plan.schedule.quorum
        gathered = await self._parts.summing.gather(work, enough=quorum)
        results = self._parts.summing.settle(last, gathered, need=quorum or len(work))
        digest = require_same_adapter(results)
        self._catching_up.forget(last + 1)
        event = StudyFinished(
            study=self.study,
            loss_before=mean_loss({email: prepared[email] for email in results}),
            loss_after=mean_loss(results),
            loss_after_by_domain={e: metric(r, "heldout_loss") for e, r in results.items()},
            heldout_tokens={e: metric(r, "heldout_tokens") for e, r in results.items()},
            adapter_sha256=digest,
            seconds=mean_seconds(results),
            quality_before=quality({email: prepared[email] for email in results}),
            quality=quality(results),
        )
        if self.folder.record("finished") is None:
            self.folder.keep_record("finished", event.as_record())
            self._emit(event)
        return event

    async def _ping(self, times: int) -> dict[str, list[float]]:
        async def one(email: str, retry: int) -> float:
            started = time.perf_counter()
            make = functools.partial(Ticket, study=self.study, kind="ping", round=0, retry=retry)
            await self._courier.ask_all(lambda member: make(member=member), (email,))
            return time.perf_counter() - started

        seconds: dict[str, list[float]] = {email: [] for email in self._courier.active()}
        for _ in range(times):
            retry = self.folder.next_ping()
            for email, taken in zip(seconds, await asyncio.gather(*(one(e, retry) for e in seconds)), strict=True):
                seconds[email].append(taken)
        return seconds

    async def _release(self) -> Release:
        last, attempt = self.plan.training.rounds, self._keys.state.generation
        ask = functools.partial(Ticket, study=self.study, round=last, attempt=attempt)
        answers = await self._courier.ask_all(
            lambda email: ask(kind="consent", member=email), self._courier.active(), may_refuse=True
        )
        consents = {email: self._consent(email, r) for email, r in answers.items() if r.status == "done"}
        refused = {email: quoted(result.reason) for email, result in answers.items() if email not in consents}
        signed = tuple(result.consent for result in answers.values() if result.consent is not None)
        results = await self._courier.ask_all(
            lambda email: ask(kind="release", member=email, consents=signed), sorted(consents), may_refuse=True
        )
        refused |= {email: quoted(result.reason) for email, result in results.items() if result.status != "done"}
        given = {email: result for email, result in results.items() if result.status == "done"}
        if not given:
            reasons = "; ".join(f"{email}: {reason}" for email, reason in sorted(refused.items()))
            raise StudyError(
                f"No domain hands the adapter over ({reasons})",
                kept="The adapter stays at the domains",
                todo="settle it with the data owners, then run `fedpriv study release` again",
            )
        digest = require_same_adapter(given)
        path = self.folder.state / "adapter.safetensors"
        for email, result in given.items():
            if result.adapter_blob is None:
                raise UntrustedError(f"{email} released without an adapter", kept="Nothing was written")
            await self._courier.fetch(email, result.adapter_blob, path, max_bytes=MAX_ADAPTER_BYTES)
            if adapter_digest(load_state(path)) != digest:
                raise UntrustedError(f"{email} released another adapter than it said", kept="Nothing was written")
        return Release(path=path, adapter_sha256=digest, consents=consents, refused=refused)

    def _consent(self, email: str, result: Result) -> Consent:
        """Return a domain's consent, checked: it is passed on to the other domains, and stands in the model card."""
        if result.consent is None:
            raise UntrustedError(f"{email} consented without a signature", kept="Nothing was asked for")
        identity = self.folder.cohort()[email]
        consent = open_signed(result.consent, kind="consent", identity=identity, model=Consent)
        if (consent.study, consent.member, consent.adapter_sha256) != (self.study, email, result.adapter_sha256):
            raise UntrustedError(f"{email} consented to something else", kept="Nothing was asked for")
        return consent
