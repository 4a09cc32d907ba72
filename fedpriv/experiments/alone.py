"""The baseline without federation: each domain trains alone, for as many steps, with the same code.

Only an experiment can measure it on everybody's held-out examples: whoever runs it holds all the shards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.clinical import PreparedData
from fedpriv.domain.runner import TrainingWorker
from fedpriv.study import Plan
from fedpriv.training.adapter import initial_adapter, load_metrics, lora_layout, save_state
from fedpriv.training.base_model import LocalModel


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
    start = workspace / "adapter-0.safetensors"
    save_state(initial_adapter(lora_layout(model.folder, plan.lora), plan.training.seed), start)
    total = len(shards) * (plan.training.rounds + len(shards))
    done, lock = [0], threading.Lock()

    def advance() -> None:
        with lock:
            done[0] += 1
            on_progress(done[0] / total)

    def one(name: str) -> AloneLoss:
        trainer = _Alone(plan, model, workspace / name, threads, advance)
        try:
            return trainer.measure(name, shards, start)
        finally:
            trainer.worker.stop()

    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(shards)))) as pool:
        return dict(zip(shards, pool.map(one, shards), strict=True))


class _Alone:
    """One domain's training worker; the code is ours, so it needs no sandbox."""

    def __init__(
        self, plan: Plan, model: LocalModel, workspace: Path, threads: int, advance: Callable[[], None]
    ) -> None:
        self._plan, self._model, self._threads, self._advance = plan, model, threads, advance
        self._workspace = workspace
        self.worker = TrainingWorker(domain=workspace, readable=(), workspace=workspace, threads=threads, sandbox="off")

    def measure(self, name: str, shards: Mapping[str, PreparedData], start: Path) -> AloneLoss:
        adapter = start
        for number in range(1, self._plan.training.rounds + 1):
            adapter = self._job("train", shards[name], adapter, number) / "adapter_after.safetensors"
        losses, tokens = {}, {}
        for other, data in shards.items():
            metrics = load_metrics(self._job("evaluate", data, adapter, 1, label=other) / "metrics.json")
            losses[other], tokens[other] = metrics["heldout_loss"], metrics["heldout_tokens"]
        everybody = sum(losses[other] * tokens[other] for other in shards) / sum(tokens.values())
        return AloneLoss(everybody=everybody, own=losses[name])

    def _job(self, kind: str, data: PreparedData, adapter: Path, number: int, *, label: str = "") -> Path:
        out = self._workspace / f"{kind}-{label or number}"
        job: dict[str, Any] = {
            "job": kind,
            "model_folder": str(self._model.folder),
            "adapter": str(adapter),
            "train": str(data.train),
            "heldout": str(data.heldout),
            "lora": self._plan.lora.model_dump(mode="json"),
            "training": self._plan.training.model_dump(mode="json"),
            "round": number,
            "seed": self._plan.training.seed,
            "threads": self._threads,
            "out": str(out),
        }
        self.worker.run(job, max_seconds=self._plan.training.max_seconds, on_step=lambda step, steps: None)
        self._advance()
        return out
