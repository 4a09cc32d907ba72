"""Local training of one study: which jobs the sandboxed worker gets, and with which files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedpriv.clinical import PreparedData
from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.runner import TrainingWorker
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import TrainingError
from fedpriv.study import Plan
from fedpriv.training.base_model import LocalModel
from fedpriv.training.private_round import PrivateSteps


@dataclass(kw_only=True)
class LocalTraining:
    """Runs jobs of one study in a training worker, which is started when it is needed and again if it died.

    Attributes
    ----------
    recipe : Path
        The frozen ``train.py``.
    prepared : PreparedData
        The domain's examples.
    """

    plan: Plan
    folder: StudyFolder
    recipe: Path
    prepared: PreparedData
    model: LocalModel
    resources: ResourcesChoice
    _worker: TrainingWorker | None = field(default=None, init=False)

    @property
    def sandbox(self) -> str:
        """The name of the sandbox that the worker runs in, for the ledger."""
        return self._worker.sandbox if self._worker else ""

    def start(self) -> TrainingWorker:
        """Return a living worker; starting one takes some seconds."""
        if self._worker is None or not self._worker.alive:
            self.stop()
            self.folder.adapters.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._worker = TrainingWorker(
                readable=(self.model.folder, self.prepared.folder, self.recipe.parent, self.folder.adapters),
                workspace=self.folder.workspace,
                threads=self.resources.threads,
                sandbox=self.resources.sandbox,
            )
        return self._worker

    def stop(self) -> None:
        """End the worker and everything it started."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def run(
        self,
        kind: Literal["train", "evaluate"],
        round_number: int,
        adapter: int,
        output: Path,
        on_step: Callable[[int, int], None],
        *,
        evaluate: bool = False,
        private: PrivateSteps | None = None,
    ) -> None:
        """Run one job that starts from the adapter after round ``adapter`` and writes to ``output``.

        With ``private``, fedpriv's own DP-SGD takes the place of the recipe, which is not run.

        Raises
        ------
        TrainingError
            If the job fails, or the worker dies twice.
        """
        job: dict[str, Any] = {
            "job": kind,
            "model_folder": str(self.model.folder),
            "recipe": str(self.recipe) if private is None else None,
            "private": None if private is None else private.model_dump(mode="json"),
            "adapter": str(self.folder.adapter(adapter)),
            "train": str(self.prepared.train),
            "heldout": str(self.prepared.heldout),
            "evaluate": evaluate,
            "lora": self.plan.lora.model_dump(mode="json"),
            "training": self.plan.training.model_dump(mode="json"),
            "round": max(1, round_number),
            "seed": self.plan.training.seed,
            "threads": self.resources.threads,
            "out": str(output),
        }
        worker = self.start()
        try:
            worker.run(job, max_seconds=self.plan.training.max_seconds, on_step=on_step)
        except TrainingError:
            if worker.alive:
                raise
            self.start().run(job, max_seconds=self.plan.training.max_seconds, on_step=on_step)
