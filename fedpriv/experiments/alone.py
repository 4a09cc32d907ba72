"""The baseline without federation: each domain trains alone, for as many steps, with the same code.

Only an experiment can measure it on everybody's held-out examples: whoever runs it holds all the shards.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.clinical import PreparedData
from fedpriv.domain import ResourcesChoice
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.domain.runner import TrainingWorker
from fedpriv.domain.sandbox import Sandbox
from fedpriv.files import private_folder
from fedpriv.study import Plan
from fedpriv.training.adapter import load_metrics, save_state, starting_adapter
from fedpriv.training.base_model import LocalModel
from fedpriv.training.private_round import PrivateSteps


@dataclass(frozen=True, kw_only=True)
class AloneLoss:
    """Held-out loss (nats a token) of the adapter that one domain trained alone.

    Attributes
    ----------
    everybody : float
        On all domains' held-out examples, token-weighted: what the federated adapter is measured on.
    own : float
        On the domain's own held-out examples.
    """

    everybody: float
    own: float


def train_alone(
    plan: Plan,
    shards: Mapping[str, PreparedData],
    model: LocalModel,
    workspace: Path,
    *,
    workers: int,
    threads: int,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, AloneLoss]:
    """Train every domain alone and measure each adapter on every domain's held-out examples.

    Parameters
    ----------
    plan : Plan
        Rounds, steps and everything else are the study's; a round starts from the domain's own last adapter.
    shards : Mapping[str, PreparedData]
        Prepared examples by domain name.
    workspace : Path
        A folder for the workers' files.
    workers, threads : int
        Training workers at the same time; threads of each.
    on_progress : Callable[[float], None]
        Called with the done fraction, from any thread.

    Raises
    ------
    TrainingError
        If a job fails.
    """
    workspace = private_folder(workspace.resolve())
    start = workspace / "adapter-0.safetensors"
    save_state(starting_adapter(model.folder, plan.lora, plan.training.seed), start)
    trainer = _Alone(plan, model, workspace, threads)
    total = len(shards) * (plan.training.rounds + len(shards))
    done = itertools.count(1)
    trainer.on_job_done = lambda: on_progress(next(done) / total)
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(shards))), initializer=trainer.start_worker) as pool:
        try:
            measured = pool.map(lambda name: trainer.measure(name, shards, start), shards)
            return dict(zip(shards, measured, strict=True))
        finally:
            trainer.stop_workers()


class _Alone:
    """Trains and measures with one training worker a thread; the code is ours, so it needs no sandbox."""

    def __init__(self, plan: Plan, model: LocalModel, workspace: Path, threads: int) -> None:
        self._plan, self._model, self._threads, self._workspace = plan, model, threads, workspace
        self._local = threading.local()
        self._workers: list[TrainingWorker] = []
        self.on_job_done: Callable[[], None] = lambda: None

    def start_worker(self) -> None:
        folder = self._workspace / f"worker-{threading.get_ident()}"
        sandbox = Sandbox(mode="off", readable=(), writable=folder)
        self._local.worker = TrainingWorker(sandbox, ResourcesChoice(threads=self._threads))
        self._workers.append(self._local.worker)

    def stop_workers(self) -> None:
        for worker in self._workers:
            worker.stop()

    def measure(self, name: str, shards: Mapping[str, PreparedData], start: Path) -> AloneLoss:
        adapter = start
        for number in range(1, self._plan.training.rounds + 1):
            out = self._workspace / name / f"round-{number}"
            folder = self._job("train", shards[name], adapter, number, out)
            adapter = folder / "adapter_after.safetensors"
        losses, tokens = {}, {}
        for other, data in shards.items():
            out = self._workspace / name / f"on-{other}"
            metrics = load_metrics(self._job("evaluate", data, adapter, 1, out) / "metrics.json")
            losses[other], tokens[other] = metrics["heldout_loss"], metrics["heldout_tokens"]
        everybody = sum(losses[other] * tokens[other] for other in shards) / sum(tokens.values())
        return AloneLoss(everybody=everybody, own=losses[name])

    def _private(self, data: PreparedData) -> PrivateSteps | None:
        """Return the noise that the domain's own part in the study has, so that both are as private."""
        privacy = self._plan.privacy
        if privacy is None or privacy.unit != "patient":
            return None
        return private_steps(privacy, planned_mechanism(self._plan, data.patients), data.patients)

    def _job(self, kind: str, data: PreparedData, adapter: Path, number: int, out: Path) -> Path:
        private = self._private(data) if kind == "train" else None
        job: dict[str, Any] = {
            "job": kind,
            "private": None if private is None else private.model_dump(mode="json"),
            "model_folder": str(self._model.folder),
            "adapter": str(adapter),
            "train": str(data.train),
            "heldout": str(data.heldout),
            "lora": self._plan.lora.model_dump(mode="json"),
            "training": self._plan.training.model_dump(mode="json"),
            "averaging": self._plan.averaging,
            "round": number,
            "seed": self._plan.training.seed,
            "threads": self._threads,
            "out": str(out),
        }
        seconds = self._plan.training.max_seconds
        self._local.worker.run(job, files=(), max_seconds=seconds, on_step=lambda step, steps: None)
        self.on_job_done()
        return out
