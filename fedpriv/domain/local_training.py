"""Local training of one study: which jobs the sandboxed worker gets, and with which files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedpriv.clinical import PreparedData
from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.runner import JobReport, TrainingWorker
from fedpriv.domain.sandbox import Sandbox
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import TrainingError
from fedpriv.files import private_folder, write_atomic
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
    _report: JobReport = field(default_factory=JobReport, init=False)

    @property
    def walls(self) -> str:
        """The walls around the worker, for the ledger."""
        return " and ".join(self._worker.sandbox.walls if self._worker else ()) or "none"

    @property
    def report(self) -> JobReport:
        """What is known of the last job from outside; it stays at the domain."""
        return self._report

    def start(self) -> TrainingWorker:
        """Return a living worker; starting one takes some seconds."""
        if self._worker is None or not self._worker.alive:
            self.stop()
            sandbox = Sandbox(
                mode=self.resources.sandbox,
                readable=(self.model.folder, self.prepared.folder, self.recipe.parent, self._input),
                writable=self.folder.workspace,
            )
            self._worker = TrainingWorker(sandbox, self.resources)
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
        watch: Callable[[], object] = lambda: None,
        private: PrivateSteps | None = None,
        steps: int | None = None,
        seconds: int | None = None,
    ) -> None:
        """Run one job that starts from the adapter after round ``adapter`` and writes to ``output``.

        With ``private``, fedpriv's own DP-SGD takes the place of the recipe, which is not run. ``steps`` take the place
        of the plan's, and so do ``seconds``, the data owner's limit, where they are fewer.

        Raises
        ------
        TrainingError
            If the job fails or breaks a limit, or the worker dies twice.
        BaseException
            Whatever ``watch`` raises, which is called while the job runs; the job is ended then.
        """
        plan = self.plan.training
        shorter = {"steps": steps or plan.steps, "max_seconds": min(seconds or plan.max_seconds, plan.max_seconds)}
        training = plan.model_copy(update=shorter)
        job: dict[str, Any] = {
            "job": kind,
            "model_folder": str(self.model.folder),
            "recipe": str(self.recipe) if private is None else None,
            "private": None if private is None else private.model_dump(mode="json"),
            "adapter": str(self._lay_out(adapter)),
            "train": str(self.prepared.train),
            "heldout": str(self.prepared.heldout),
            "averaging": self.plan.averaging,
            "evaluate": evaluate,
            "lora": self.plan.lora.model_dump(mode="json"),
            "training": training.model_dump(mode="json"),
            "round": max(1, round_number),
            "seed": self.plan.training.seed,
            "threads": self.resources.threads,
            "out": str(output),
        }
        try:
            self._run(job, training.max_seconds, on_step, watch)
        except TrainingError:
            if self._report.stopped or (self._worker is not None and self._worker.alive):
                raise
            self._run(job, training.max_seconds, on_step, watch)  # the worker died of itself: once more

    def _run(
        self,
        job: dict[str, Any],
        max_seconds: int,
        on_step: Callable[[int, int], None],
        watch: Callable[[], object],
    ) -> None:
        files = (self.model.folder, self.prepared.folder, self.recipe.parent, self._input)
        worker = self.start()
        try:
            worker.run(job, files=files, max_seconds=max_seconds, on_step=on_step, watch=watch)
        finally:
            self._report = worker.report

    @property
    def _input(self) -> Path:
        """The folder with the one adapter that a job starts from."""
        return private_folder(self.folder.root / "input")

    def _lay_out(self, adapter: int) -> Path:
        """Put the adapter after a round where jobs find it, in place of the one before."""
        path = self._input / "adapter.safetensors"
        write_atomic(path, self.folder.adapter(adapter).read_bytes(), durable=False)  # each job has it anew
        return path
