"""What stands for local training in a simulation: an objective that is descended, or real training in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedpriv.clinical import PreparedData
from fedpriv.domain.runner import JobReport
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.files import private_folder, write_atomic
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.training.adapter import flatten, load_state, save_state, unflatten
from fedpriv.training.base_model import LocalModel
from fedpriv.training.jobs import Job, do_job


@dataclass(frozen=True)
class Counts:
    """How many examples and patients a shard has; the part of :class:`PreparedData` that tickets ask for."""

    examples: int
    heldout_examples: int = 10
    patients: int = 10


@dataclass(frozen=True)
class Asked:
    """The arguments of :meth:`fedpriv.domain.local_training.LocalTraining.run`.

    What it watches, its limit of ``seconds`` and its noise (``private``) have no part in a simulation.
    """

    kind: Literal["train", "evaluate"]
    round_number: int
    adapter: int
    output: Path
    on_step: Callable[[int, int], None]
    evaluate: bool = False
    steps: int | None = None
    seconds: float | None = None
    watch: Callable[[], object] | None = None
    private: object = None


class Training:
    """The calls of :class:`fedpriv.domain.local_training.LocalTraining`, without its sandbox."""

    walls = "none (a simulation)"
    report = JobReport()
    folder: StudyFolder
    plan: Plan

    @property
    def prepared(self) -> PreparedData | Counts:
        """The domain's examples, or how many there are."""
        raise NotImplementedError

    def at(self, folder: StudyFolder, plan: Plan) -> Training:
        """Return this training for one study at one domain."""
        self.folder, self.plan = folder, plan
        return self

    def start(self) -> None:
        """Nothing needs to start."""

    def stop(self) -> None:
        """Nothing needs to stop."""

    def run(self, *arguments: Any, **options: Any) -> None:
        """Write what a job writes: the adapter after training, and metrics. See :class:`Asked` for the arguments."""
        self.work(Asked(*arguments, **options))

    def work(self, asked: Asked) -> None:
        """Do what :meth:`run` is asked."""
        raise NotImplementedError


class Objective:
    """What stands for a domain's notes: the loss ``floor + |w - optimum|^2 / 2``, whose gradients are noisy.

    Domains have different optima around a common one, so that they pull apart as unequal shards do.
    """

    def __init__(self, size: int, seed: int, *, spread: float = 0.5, noise: float = 0.05) -> None:
        common = np.random.default_rng(0).normal(size=size) / np.sqrt(size)
        self._rng = np.random.default_rng(seed)
        self._optimum = common + spread * self._rng.normal(size=size) / np.sqrt(size)
        self._noise, self.floor = noise, 1.0

    def loss(self, parameters: np.ndarray) -> float:
        return self.floor + 0.5 * float(np.sum((parameters - self._optimum) ** 2))

    def descend(
        self, parameters: np.ndarray, steps: int, rate: float, seed: tuple[int, ...]
    ) -> tuple[np.ndarray, float]:
        """Return the parameters after so many steps of gradient descent, and the mean loss on the way."""
        rng, losses = np.random.default_rng(seed), []
        for _ in range(steps):
            losses.append(self.loss(parameters))
            gradient = parameters - self._optimum + self._noise * rng.normal(size=parameters.size)
            parameters = parameters - rate * gradient
        return parameters, float(np.mean(losses))


@dataclass
class DescendingTraining(Training):
    """Descends an objective where a domain would train on its notes."""

    objective: Objective
    examples: int
    number: int

    @property
    def prepared(self) -> Counts:
        return Counts(examples=self.examples)

    def work(self, asked: Asked) -> None:
        state = load_state(self.folder.adapter(asked.adapter))
        parameters = flatten(state).astype(np.float64)
        metrics = {"heldout_loss": self.objective.loss(parameters), "heldout_tokens": 100}
        if asked.kind == "train":
            choice = self.plan.training
            after, loss = self.objective.descend(
                parameters,
                asked.steps or choice.steps,
                choice.learning_rate,
                (choice.seed, self.number, asked.round_number),
            )
            trained, names = unflatten(after.astype(np.float32), state), set(state)
            frozen = names - set(trained_tensors(self.plan.averaging, state, asked.round_number))
            save_state(trained | {name: state[name] for name in frozen}, asked.output / "adapter_after.safetensors")
            metrics |= {"train_loss": loss, "train_tokens": 100}
        write_atomic(asked.output / "metrics.json", json.dumps(metrics).encode())


@dataclass
class ModelTraining(Training):
    """Trains a model on a domain's notes as a training worker does, but in this process.

    Attributes
    ----------
    model : LocalModel
        The base model; ``tiny`` trains a round in a tenth of a second.
    data : PreparedData
        The domain's examples.
    """

    model: LocalModel
    data: PreparedData
    threads: int = field(default=1)

    @property
    def prepared(self) -> PreparedData:
        return self.data

    def work(self, asked: Asked) -> None:
        training = self.plan.training.model_copy(update={} if asked.steps is None else {"steps": asked.steps})
        job = {
            "id": "simulated",
            "job": asked.kind,
            "model_folder": str(self.model.folder),
            "adapter": str(self.folder.adapter(asked.adapter)),
            "train": str(self.data.train),
            "heldout": str(self.data.heldout),
            "evaluate": asked.evaluate,
            "lora": self.plan.lora.model_dump(mode="json"),
            "training": training.model_dump(mode="json"),
            "averaging": self.plan.averaging,
            "round": max(1, asked.round_number),
            "seed": self.plan.training.seed,
            "threads": self.threads,
            "out": str(private_folder(asked.output)),
        }
        do_job(Job.model_validate_json(json.dumps(job)), asked.on_step)
