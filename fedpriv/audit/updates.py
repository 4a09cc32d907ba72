"""Updates as a round of the plan would compute them, of passages in the place of the shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.audit.own_code import OwnCode
from fedpriv.audit.passages import Passage, write_passages
from fedpriv.domain.gatekeeper import privatise
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.leakage import gradient_of
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
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
        by_patient = privacy is not None and privacy.unit == "patient"
        write_passages(passages, shard, silent=self.patients - len(passages) if by_patient else 0)
        try:
            after = self._train(shard, len(passages))
        finally:
            shard.unlink()
        change = {name: after[name] - self.adapter[name] for name in self.sent}
        if privacy is None or privacy.unit != "domain":
            return change
        noise = planned_mechanism(self.plan, self.patients).noise_multiplier
        return unflatten(privatise(flatten(change), clip=privacy.bound, noise_multiplier=noise), change)

    def gradient(self, passage: Passage) -> AdapterState:
        """Return the plain gradient of one passage by the sent tensors: the attacks' positive control."""
        found = gradient_of(self.model_folder, self.plan.lora, self.adapter, [passage.example])
        return {name: found[name] for name in self.sent}

    def _train(self, shard: Path, passages: int) -> AdapterState:
        training = self.plan.training
        privacy = self.plan.privacy
        private = privacy is not None and privacy.unit == "patient"
        if passages < training.batch_size and not private:  # copies of the same passages would have the same gradient
            training = training.model_copy(update={"batch_size": passages, "accumulation": 1})
        if self.own and not private:
            return self.own.train(self.plan.model_copy(update={"training": training}), self.round, self.adapter)
        context = LocalContext(
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
        if privacy is None or not private:
            return train_local(context).adapter_after
        steps = private_steps(privacy, planned_mechanism(self.plan, self.patients), self.patients)
        return train_private(context, steps).adapter_after
