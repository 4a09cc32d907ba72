"""A simulated domain: the real domain code carries out its tickets; links, training and time are made up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedpriv.clinical.statement import schema_digest, task_digest
from fedpriv.domain.context import StudyContext
from fedpriv.domain.folder import DataChoice, DomainConfig, PolicyChoice
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.tickets import StudyWork, failure
from fedpriv.errors import FedprivError
from fedpriv.experiments.simulation.traces import Trace
from fedpriv.experiments.simulation.training import DescendingTraining, Objective, Training
from fedpriv.files import canonical_json, sha256_hex, write_atomic
from fedpriv.protection import IdentityKeys
from fedpriv.study import BlobRef, CodeRequest, Limits, Progress, RequestDecision, Result, Ticket
from fedpriv.study.messages import LinkSample
from fedpriv.study.shard import ShardStatement, coarse
from fedpriv.training.adapter import flatten, save_state

Adapter = dict[str, np.ndarray]
Moved = Callable[[int, int], None]


class Relay:
    """The blobs of one party, in one dictionary for all; the store and transport encryption have no part in it."""

    def __init__(self, owner: str, blobs: dict[tuple[str, str, str], bytes]) -> None:
        self._owner, self._blobs = owner, blobs

    def send(self, recipient: str, name: str, data: bytes | Path, *, on_moved: Moved | None = None) -> BlobRef:
        data = data.read_bytes() if isinstance(data, Path) else data
        self._blobs[recipient, self._owner, name] = data
        return BlobRef(name=name, size_bytes=len(data), sha256=sha256_hex(data))

    def receive(self, sender: str, reference: BlobRef, target: Path, **_: object) -> Path:
        write_atomic(target, self._blobs[self._owner, sender, reference.name])
        return target

    def remove(self, recipient: str, name: str) -> None:
        self._blobs.pop((recipient, self._owner, name), None)


class SimulatedDomain:
    """One domain of a simulation.

    Parameters
    ----------
    folder : Path
        Its folder; a domain is made again from it after a simulated kill.
    keys : IdentityKeys
        Its keys.
    request : CodeRequest
        The approved request.
    trace : Trace
        How fast it is, and when it is away.
    start : dict of str to ndarray
        The first adapter.
    relay : Relay
        Its blobs.
    training : Training, optional
        What its notes and the training on them are; by default an :class:`Objective`.
    """

    def __init__(
        self,
        folder: Path,
        keys: IdentityKeys,
        request: CodeRequest,
        *,
        trace: Trace,
        start: Adapter,
        relay: Relay,
        training: Training | None = None,
    ) -> None:
        self.email, self.trace, plan = keys.identity.email, trace, request.plan
        self._make = functools.partial(
            SimulatedDomain, folder, keys, request, trace=trace, start=start, relay=relay, training=training
        )
        number = plan.emails.index(self.email)
        config = DomainConfig(
            name=f"domain-{number}",
            email=self.email,
            store=str(folder),
            data=DataChoice(source=str(folder)),
            policy=PolicyChoice(minimum_cohort=2),
        )
        limits = Limits(rounds=plan.training.rounds, metrics=plan.metrics, minimum_cohort=2)
        decision = RequestDecision(study=request.study, member=self.email, decision="approved", limits=limits)
        self.decision = decision
        study = StudyFolder(folder / "study")
        if not study.adapter(0).exists():
            save_state(start, study.adapter(0))
        self.signs: list[Progress] = []
        context = StudyContext(
            config=config,
            keys=keys,
            folder=study,
            stored=StoredRequest(request=request, researcher=plan.researcher.email, received_s=0.0, decision=decision),
            decision=lambda: decision,
            ledger=Ledger(folder / "ledger.jsonl", keys.sign_bytes, lambda data, signature: True),
            blobs=relay,  # type: ignore[arg-type] - the same calls
            on_progress=self.signs.append,
            notify=lambda sentence: None,
        )
        training = training or DescendingTraining(Objective(flatten(start).size, number + 1), trace.examples, number)
        self.work = StudyWork(
            context=context,
            releasing=Releasing(context, None),  # type: ignore[arg-type] - nothing is released in a simulation
            training=training.at(study, plan),  # type: ignore[arg-type] - the same calls
            prepared=training.prepared,  # type: ignore[arg-type] - the same numbers
            model=None,  # type: ignore[arg-type] - the first adapter is here
            shard=ShardStatement(
                member=keys.email,
                dataset=plan.dataset,
                schema_sha256=schema_digest(),
                task_sha256=task_digest(plan.task, request.files),
                tables={},
                patients=coarse(training.prepared.patients),
                admissions=coarse(training.prepared.examples),
                examples=coarse(training.prepared.examples),
                heldout_examples=coarse(training.prepared.heldout_examples),
            ),
        )

    @functools.cached_property
    def folder(self) -> StudyFolder:
        return self.work.context.folder

    def again(self) -> SimulatedDomain:
        """Return this domain made from its folder once more, as its service is when it starts again."""
        return self._make()

    def answer(self, ticket: Ticket) -> tuple[Result, float]:
        """Carry out a ticket and return the answer with the virtual seconds that it takes."""
        digest = sha256_hex(canonical_json(ticket.model_dump(mode="json")))
        try:
            result = self.work.carry_out(ticket, digest)
        except FedprivError as error:
            result = failure(ticket, digest, self.email, error, retired_key=self.work.context.key_room.retired_key())
        return self._timed(ticket, result)

    def _timed(self, ticket: Ticket, result: Result) -> tuple[Result, float]:
        """Put virtual seconds in place of those that this process took."""
        trace = self.trace
        up = result.update_blob.size_bytes if result.update_blob else 0
        down = sum(blob.size_bytes for blob in (ticket.key, ticket.aggregate_blob) if blob is not None)
        moved = {"up": up * 8e-6 / trace.up_mbps, "down": down * 8e-6 / trace.down_mbps}
        steps = (ticket.steps or self.work.context.plan.training.steps) if ticket.kind == "train" else 0
        train = steps * trace.step_s if result.status == "done" else 0.0
        messages = 2 + bool(up) + bool(down)
        link = LinkSample(
            up_bytes=up,
            up_s=moved["up"] + (trace.latency_s if up else 0),
            down_bytes=down,
            down_s=moved["down"] + (trace.latency_s if down else 0),
            small_put_s=trace.latency_s,
        )
        seconds = {"train": train} if train else {}
        taken = train + moved["up"] + moved["down"] + messages * trace.latency_s
        return result.model_copy(update={"link": link, "seconds": seconds}), taken
