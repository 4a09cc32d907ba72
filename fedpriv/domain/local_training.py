"""Local training of one study: which jobs the sandboxed worker gets, and with which files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedpriv.clinical import PreparedData
from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.runner import JobReport, TrainingWorker
from fedpriv.domain.sandbox import Sandbox
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import TrainingError, UntrustedError
from fedpriv.files import private_folder, write_atomic
from fedpriv.study import Plan
from fedpriv.training.adapter import read_plain_file
from fedpriv.training.base_model import LocalModel
from fedpriv.training.jobs import TOKENS
from fedpriv.training.private_round import PrivateSteps
from fedpriv.training.token_store import MOST_BYTES, Side, open_tokens, tokens_name, worth_keeping


@dataclass(kw_only=True)
class LocalTraining:
    """Runs jobs of one study in a training worker, which is started when it is needed and again if it died.

    Attributes
    ----------
    recipe : Path
        The frozen ``train.py``.
    prepared : PreparedData
        The domain's examples.
    keep_tokens : bool
        Encode them once for all jobs; not where each job has others.
    """

    plan: Plan
    folder: StudyFolder
    recipe: Path
    prepared: PreparedData
    model: LocalModel
    resources: ResourcesChoice
    keep_tokens: bool = True
    _worker: TrainingWorker | None = field(default=None, init=False)
    _report: JobReport = field(default_factory=JobReport, init=False)
    _kept_tokens: Path | None = field(default=None, init=False)
    _looked_for_tokens: bool = field(default=False, init=False)

    @property
    def walls(self) -> str:
        """The walls around the worker, for the ledger."""
        return " and ".join(self._worker.sandbox.walls if self._worker else ()) or "none"

    @property
    def is_started(self) -> bool:
        """Whether there is a worker, so that it is known which walls it has."""
        return self._worker is not None

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
                readable=self._files,
                writable=self.folder.workspace,
            )
            self._worker = TrainingWorker(sandbox, self.resources, four_bits=self.plan.training.four_bits)
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
        tokens = self._tokens(job, training.max_seconds, watch)
        job["tokens"] = None if tokens is None else str(tokens)
        try:
            self._run(job, training.max_seconds, on_step, watch)
        except TrainingError:
            if self._report.stopped or (self._worker is not None and self._worker.alive):
                raise
            self._run(job, training.max_seconds, on_step, watch)  # the worker died of itself: once more

    def _tokens(self, job: dict[str, Any], max_seconds: int, watch: Callable[[], object]) -> Path | None:
        """Return the file of the shard's tokens, encoded first if need be; None where there is none to be had.

        It is asked for once in the life of this process. Encoding is a job of its own, fedpriv's code alone; what it
        wrote is checked, and copied to where no job may write. Without the file jobs encode the texts themselves.
        """
        if self.keep_tokens and not self._looked_for_tokens:
            self._looked_for_tokens = True
            with contextlib.suppress(TrainingError, UntrustedError, OSError):
                self._kept_tokens = self._keep_tokens(job, max_seconds, watch)
        return self._kept_tokens

    def _keep_tokens(self, job: dict[str, Any], max_seconds: int, watch: Callable[[], object]) -> Path | None:
        privacy = self.plan.privacy
        files: dict[Side, Path] = {"train": self.prepared.train, "heldout": self.prepared.heldout}
        if not worth_keeping(files, all_read=privacy is not None and privacy.unit == "patient"):
            return None
        max_tokens = self.plan.training.max_tokens
        path = self.folder.tokens / tokens_name(self.prepared.digest, self.model.folder, max_tokens)
        for old in path.parent.iterdir():  # of other data, or half written
            if old != path:
                old.unlink()
        check = functools.partial(open_tokens, path, model_folder=self.model.folder, max_tokens=max_tokens)
        with contextlib.suppress(UntrustedError):
            check()
            return path
        output = self.folder.output("tokenize")
        none = dict.fromkeys(("recipe", "private", "adapter"))
        trusted = {**job, **none, "job": "tokenize", "evaluate": False, "tokens": str(path), "out": str(output)}
        try:
            self._run(trusted, max_seconds, lambda step, steps: None, watch)
            write_atomic(path, read_plain_file(output / TOKENS, max_bytes=MOST_BYTES))
        finally:
            (output / TOKENS).unlink(missing_ok=True)
        check()
        return path

    def _run(
        self,
        job: dict[str, Any],
        max_seconds: int,
        on_step: Callable[[int, int], None],
        watch: Callable[[], object],
    ) -> None:
        worker = self.start()
        try:
            worker.run(job, files=self._files, max_seconds=max_seconds, on_step=on_step, watch=watch)
        finally:
            self._report = worker.report

    @property
    def _files(self) -> tuple[Path, ...]:
        """What of this study a job may read."""
        return (self.model.folder, self.prepared.folder, self.recipe.parent, self._input, self.folder.tokens)

    @property
    def _input(self) -> Path:
        """The folder with the one adapter that a job starts from."""
        return private_folder(self.folder.root / "input")

    def _lay_out(self, adapter: int) -> Path:
        """Put the adapter after a round where jobs find it, in place of the one before."""
        path = self._input / "adapter.safetensors"
        write_atomic(path, self.folder.adapter(adapter).read_bytes(), durable=False)  # each job has it anew
        return path
