"""Training jobs of an experiment that holds all the shards: fedpriv's own code, so that a worker needs no sandbox."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from fedpriv.clinical import PreparedData
from fedpriv.domain import ResourcesChoice
from fedpriv.domain.runner import TrainingWorker
from fedpriv.domain.sandbox import Sandbox
from fedpriv.files import private_folder
from fedpriv.study import Plan
from fedpriv.training.adapter import load_metrics, save_state, starting_adapter
from fedpriv.training.base_model import LocalModel
from fedpriv.training.private_round import PrivateSteps


class TrustedJobs:
    """One training worker that does the jobs of a plan, as a domain's does; a context manager that ends it.

    Parameters
    ----------
    plan : Plan
        What is trained, and how.
    model : LocalModel
        The base model.
    workspace : Path
        A folder for the worker's files and for what jobs write.
    threads : int
        Processor threads of the worker.
    on_job_done : Callable[[], None]
        Called after every job.
    """

    def __init__(
        self,
        plan: Plan,
        model: LocalModel,
        workspace: Path,
        *,
        threads: int,
        on_job_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan, self._model, self._threads, self._done = plan, model, threads, on_job_done
        self.workspace = private_folder(workspace.resolve())
        self._worker = TrainingWorker(
            Sandbox(mode="off", readable=(), writable=self.workspace),
            ResourcesChoice(threads=threads),
            four_bits=plan.training.four_bits,
        )

    def __enter__(self) -> TrustedJobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def of_plan(self, plan: Plan) -> TrustedJobs:
        """Return the same worker for the jobs of another plan: starting one takes seconds."""
        other = copy.copy(self)
        other._plan = plan
        return other

    def stop(self) -> None:
        """End the worker."""
        self._worker.stop()

    def start_adapter(self) -> Path:
        """Write the adapter that the study starts from, and return its file."""
        path = self.workspace / "adapter-0.safetensors"
        save_state(starting_adapter(self._model.folder, self._plan.lora, self._plan.training.seed), path)
        return path

    def train(
        self,
        data: PreparedData,
        adapter: Path,
        number: int,
        out: Path,
        *,
        private: PrivateSteps | None = None,
        evaluate: bool = False,
    ) -> Path:
        """Train a round from ``adapter`` and return the file of the adapter after it.

        With ``evaluate``, the held-out loss of ``adapter`` is measured first, as in a study's rounds.

        Raises
        ------
        TrainingError
            If the job fails.
        """
        self._run("train", data, adapter, number, out, private=private, evaluate=evaluate)
        return out / "adapter_after.safetensors"

    def evaluate(self, data: PreparedData, adapter: Path, out: Path) -> dict[str, float]:
        """Return the metrics of an adapter on held-out examples; see :func:`fedpriv.training.evaluate_local`.

        Raises
        ------
        TrainingError
            If the job fails.
        """
        self._run("evaluate", data, adapter, 1, out)
        return load_metrics(out / "metrics.json")

    def _run(
        self,
        kind: str,
        data: PreparedData,
        adapter: Path,
        number: int,
        out: Path,
        *,
        private: PrivateSteps | None = None,
        evaluate: bool = False,
    ) -> None:
        training = self._plan.training
        job: dict[str, Any] = {
            "job": kind,
            "evaluate": evaluate,
            "private": None if private is None else private.model_dump(mode="json"),
            "model_folder": str(self._model.folder),
            "adapter": str(adapter),
            "train": str(data.train),
            "heldout": str(data.heldout),
            "lora": self._plan.lora.model_dump(mode="json"),
            "training": training.model_dump(mode="json"),
            "averaging": self._plan.averaging,
            "round": number,
            "seed": training.seed,
            "threads": self._threads,
            "out": str(out),
        }
        self._worker.run(job, files=(), max_seconds=training.max_seconds, on_step=lambda step, steps: None)
        self._done()
