"""The orchestrator: one asyncio coroutine that carries a study through its rounds and emits events.

Every step is "make sure that": a ticket is the same bytes when it is sent again, results and aggregates lie on disk
before anything is built on them. Starting it again after a kill goes on where it stopped, and no domain trains twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.errors import StudyError, UntrustedError
from fedpriv.researcher.courier import POLL_SECONDS, Courier
from fedpriv.researcher.events import Decided, Event, StudyFinished, StudyStarted
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.round import RoundRunner, mean_loss, mean_seconds, metric, require_same_adapter
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import RequestDecision, Result, Ticket
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
        self._keys = KeyRelay(folder, self._courier, emit)
        self._round = RoundRunner(folder, self._courier, self._keys, emit)

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
        domains = self.folder.active(self.plan.emails)
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
        await self._keys.renew()
        for number in range(1, self.plan.training.rounds + 1):
            if not self.folder.is_finished(number):
                await self._round.run(number, prepared)
        return await self._finish(prepared)

    async def _approvals(self) -> dict[str, RequestDecision]:
        decisions = self.folder.decisions()
        since = time.monotonic()
        while waiting := [e for e in self._courier.active() if not _approved(decisions.get(e))]:
            for email in waiting:
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
                if decision is not None and decision.decision in ("rejected", "revoked"):
                    raise StudyError(
                        f"{email} {decision.decision} the request: {decision.reason}",
                        kept="Nothing was run",
                        todo="change the plan and submit a new study",
                    )
            waiting = [email for email in waiting if not _approved(decisions.get(email))]
            since = self._courier.say_waiting(since, waiting, "approval")
            await asyncio.sleep(POLL_SECONDS)
        return decisions

    async def _prepare(self) -> dict[str, Result]:
        identities = tuple(identity for _, identity in sorted(self.folder.cohort().items()))
        results = await self._courier.ask_all(
            lambda email: Ticket(study=self.study, kind="prepare", round=0, member=email, identities=identities),
            self._courier.active(),
        )
        require_same_adapter(results)
        if self.folder.keys() is None and self.plan.key_maker in results:
            await self._keys.take(results[self.plan.key_maker], generation=1, from_round=1)
        return results

    async def _finish(self, prepared: Mapping[str, Result]) -> StudyFinished:
        last, members = self.plan.training.rounds, self._courier.active()
        manifest = self.folder.manifest(last)
        aggregates = await self._round.send_aggregate(manifest, members)
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study,
                kind="finish",
                round=last,
                attempt=self._keys.state.generation,
                member=email,
                aggregate=aggregates[email][0],
                aggregate_blob=aggregates[email][1],
            ),
            members,
        )
        digest = require_same_adapter(results)
        await self._round.remove_aggregate(manifest, members)
        event = StudyFinished(
            study=self.study,
            loss_before=mean_loss({email: prepared[email] for email in results}),
            loss_after=mean_loss(results),
            loss_after_by_domain={e: metric(r, "heldout_loss") for e, r in results.items()},
            heldout_tokens={e: metric(r, "heldout_tokens") for e, r in results.items()},
            adapter_sha256=digest,
            seconds=mean_seconds(results),
        )
        if self.folder.record("finished") is None:
            self.folder.keep_record("finished", event.as_record())
            self._emit(event)
        return event

    async def _release(self) -> tuple[Path, str]:
        last = self.plan.training.rounds
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self.study, kind="release", round=last, attempt=self._keys.state.generation, member=email
            ),
            self._courier.active(),
        )
        digest = require_same_adapter(results)
        path = self.folder.state / "adapter.safetensors"
        for email, result in results.items():
            if result.adapter_blob is None:
                raise UntrustedError(f"{email} released without an adapter", kept="Nothing was written")
            await self._courier.fetch(email, result.adapter_blob, path)
            if adapter_digest(load_state(path)) != digest:
                raise UntrustedError(f"{email} released another adapter than it said", kept="Nothing was written")
        return path, digest


def _approved(decision: RequestDecision | None) -> bool:
    return decision is not None and decision.decision == "approved"
