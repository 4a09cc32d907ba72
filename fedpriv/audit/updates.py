"""Updates as a round of the plan would compute them, of passages in the place of the shard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.audit.own_code import OwnCode
from fedpriv.audit.passages import Passage, write_passages
from fedpriv.domain.gatekeeper import privatise
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.leakage import gradient_of
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.study.plan import TrainingChoice
from fedpriv.training.adapter import AdapterState, Layout, flatten, layout_of, unflatten
from fedpriv.training.local_round import LocalContext, train_local
from fedpriv.training.private_round import train_private


@dataclass(frozen=True, kw_only=True)
class PlannedWork:
    """A local round of a plan, from one adapter.

    Attributes
    ----------
    plan : Plan
        Whose training, averaging and privacy count.
    model_folder : Path
        The base model.
    adapter : dict of ndarray of float32
        Where the round begins.
    round : int
        Its number, which decides what is trained where factors take turns.
    patients : int
        Training patients of the shard, from which the noise of a plan with privacy follows.
    threads : int
        Processor threads.
    scratch : Path
        A private folder for the file that training reads.
    own : OwnCode, optional
        Runs the request's own code in the stock recipe's place; privacy of unit patient runs neither.
    """

    plan: Plan
    model_folder: Path
    adapter: AdapterState
    round: int
    patients: int
    threads: int
    scratch: Path
    own: OwnCode | None = None

    @property
    def sent(self) -> Layout:
        """Names and shapes of the tensors that the round trains and sends."""
        whole = layout_of(self.adapter)
        return {name: whole[name] for name in trained_tensors(self.plan.averaging, whole, self.round)}

    def update(self, passages: Sequence[Passage]) -> AdapterState:
        """Return the change of the sent tensors after the plan's steps on these passages and no others.

        With privacy of unit patient, each passage is a patient's, and all other patients of the shard have nothing to
        tell: noise and draws are the plan's at this domain, and what else was in the steps is known to the attacker.
        With unit domain, the gatekeeper's clipping and noise are on the update.

        Raises
        ------
        TrainingError
            If the loss is not finite, or the request's own code fails.
        GatekeeperError
            If what that code returned would not be let out.
        RefusedError
            If the plan's privacy cannot be had with so few patients.
        """
        shard = self.own.shard if self.own else self.scratch / "passages.jsonl"
        privacy = self.plan.privacy
        with _written(passages, shard, silent=self.patients - len(passages) if self._by_patient else 0):
            change = self._change(self._train(shard, len(passages)))
        if privacy is None or privacy.unit != "domain":
            return change
        noise = planned_mechanism(self.plan, self.patients).noise_multiplier
        return unflatten(privatise(flatten(change), clip=privacy.bound, noise_multiplier=noise), change)

    @property
    def is_bare(self) -> bool:
        """Whether neither privacy nor code of the request's own has a part in the updates."""
        return self.plan.privacy is None and self.own is None

    def bare_update(self, passages: Sequence[Passage]) -> AdapterState:
        """Return the change of the same tensors by the stock recipe without privacy: where attacks must find something.

        Raises
        ------
        TrainingError
            If the loss is not finite.
        """
        shard = self.scratch / "passages.jsonl"
        with _written(passages, shard):
            return self._change(train_local(self._context(shard, self._training_of(len(passages)))).adapter_after)

    def gradient(self, passage: Passage) -> AdapterState:
        """Return the plain gradient of one passage by the sent tensors: the attacks' positive control."""
        found = gradient_of(self.model_folder, self.plan.lora, self.adapter, [passage.example])
        return {name: found[name] for name in self.sent}

    @property
    def _by_patient(self) -> bool:
        return self.plan.privacy is not None and self.plan.privacy.unit == "patient"

    def _change(self, after: AdapterState) -> AdapterState:
        return {name: after[name] - self.adapter[name] for name in self.sent}

    def _train(self, shard: Path, passages: int) -> AdapterState:
        privacy = self.plan.privacy
        if privacy is not None and privacy.unit == "patient":
            steps = private_steps(privacy, planned_mechanism(self.plan, self.patients), self.patients)
            return train_private(self._context(shard, self.plan.training), steps).adapter_after
        training = self._training_of(passages)
        if self.own:
            return self.own.train(self.plan.model_copy(update={"training": training}), self.round, self.adapter)
        return train_local(self._context(shard, training)).adapter_after

    def _training_of(self, passages: int) -> TrainingChoice:
        """Return the plan's training, without copies of the same passages in a batch: their gradient is the same."""
        training = self.plan.training
        if passages >= training.batch_size:
            return training
        return training.model_copy(update={"batch_size": passages, "accumulation": 1})

    def _context(self, shard: Path, training: TrainingChoice) -> LocalContext:
        return LocalContext(
            model_folder=self.model_folder,
            adapter=self.adapter,
            trained=tuple(self.sent),
            train=shard,
            heldout=shard,
            lora=self.plan.lora,
            training=training,
            round=self.round,
            seed=training.seed,
            threads=self.threads,
        )


@contextlib.contextmanager
def _written(passages: Sequence[Passage], shard: Path, *, silent: int = 0) -> Iterator[None]:
    """Have passages in a file for as long as they are trained on."""
    write_passages(passages, shard, silent=silent)
    try:
        yield
    finally:
        shard.unlink()
