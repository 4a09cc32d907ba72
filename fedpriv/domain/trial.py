"""A trial: a request's code, in the sandbox of a real round, on made-up patients. It knows no domain.

A data owner tries what was submitted (:mod:`fedpriv.domain.dry_run`), a researcher what is going to be.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedpriv.clinical import PreparedData, write_mock
from fedpriv.domain.finding import visible
from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.gatekeeper import check_metrics, check_update, metric_bounds
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.log_tail import last_lines
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import GatekeeperError, RefusedError, TrainingError
from fedpriv.files import file_sha256, folder_lock, private_folder, write_atomic
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section
from fedpriv.training.adapter import load_metrics, load_state, save_state, starting_adapter
from fedpriv.training.base_model import LocalModel, ensure_model
from fedpriv.training.jobs import LOG
from fedpriv.training.private_round import PrivateSteps

MOST_LOG_LINES = 40
UNKNOWN_WALLS = "unknown"
_TRAINED_SHARE = 0.8

OnStep = Callable[[int, int], None]


class DryRun(Section):
    """What a dry run showed; kept beside the request and shown to the data owner, never to the researcher.

    Attributes
    ----------
    outcome : str
        ``passed``: the gatekeeper would have let it leave. ``refused``: it ran, and the gatekeeper would not.
        ``failed``: the code did not come to its end.
    reason : str
        Why not, in words; empty if it passed.
    walls : str
        What stood around it, such as ``bubblewrap and landlock and seccomp``, or ``none``; ``unknown`` if the
        worker ended before it said so.
    tried : tuple of str
        What the code tried that training never needs, as the walls saw it.
    steps : int
        Optimiser steps that it was to take; a real round takes those of the plan.
    examples : int
        Mock examples that it could train on.
    seconds, round_s : float
        Wall clock of the dry run, and estimated from it that of a real round, without measuring the held-out loss.
    peak_memory_bytes : int or None
        The most memory that the worker and the job were seen to have together.
    metrics : dict of str to float
        What would have left beside the sealed update, from mock data.
    heldout_before, heldout_after : float or None
        The held-out loss on mock data, without the adapter that it trained and with it, where that was asked for.
    log : tuple of str
        The last lines that the code wrote, with every character visible.
    """

    study: Sha256
    tried_s: float
    outcome: Literal["passed", "refused", "failed"]
    reason: str = ""
    walls: str
    steps: int = Field(ge=1)
    threads: int = Field(ge=1)
    examples: int = Field(ge=0)
    seconds: float = Field(ge=0)
    round_s: float | None = None
    peak_memory_bytes: int | None = None
    tried: tuple[str, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)
    heldout_before: float | None = None
    heldout_after: float | None = None
    log: tuple[str, ...] = ()

    @property
    def walls_in_words(self) -> str:
        """What stood around it, for the data owner: ``NONE`` stands out."""
        if "bubblewrap" in self.walls:
            return f"{self.walls}: no network, no view of your data"
        return "unknown: it ended before it said so" if self.walls == UNKNOWN_WALLS else "NONE"


def shorter(plan: Plan, *, steps: int, max_seconds: int) -> Plan:
    """Return a plan whose local round has so many steps and seconds at most."""
    limits = {
        "steps": min(plan.training.steps, steps),
        "max_seconds": max(5, min(plan.training.max_seconds, max_seconds)),
    }
    return plan.model_copy(update={"training": plan.training.model_copy(update=limits)})


def model_of(plan: Plan, cache: Path | None = None) -> LocalModel:
    """Return the plan's base model, which is fetched if it is not on this machine.

    Raises
    ------
    RefusedError
        If its weights are not those that the plan names.
    ModelError
        If it cannot be had.
    """
    model = ensure_model(plan.base_model.name, cache=cache)
    if plan.base_model.digest not in (None, model.digest):
        raise RefusedError("The base model here has other weights than the plan names", kept="Nothing was run")
    return model


@contextlib.contextmanager
def trial_folder(state: Path, holder: str) -> Iterator[Path]:
    """Give the empty private folder ``tries`` to one trial at a time, and remove it, and what a killed one left.

    Raises
    ------
    LockError
        If another trial is going on there.
    """
    tries = state / "tries"
    with folder_lock(state / "try.lock", holder=holder, todo="wait until it is done and try again"):
        shutil.rmtree(tries, ignore_errors=True)
        try:
            yield private_folder(tries)
        finally:
            shutil.rmtree(tries, ignore_errors=True)


@dataclass(kw_only=True)
class Trial:
    """A request's code at work on mock data, in a folder of its own.

    *Guarantee*: the code gets copies of mock examples, which depend on no patient, the base model and a new adapter.

    Attributes
    ----------
    request : CodeRequest
        What is tried.
    plan : Plan
        Its plan, or a :func:`shorter` one.
    resources : ResourcesChoice
        What it may use, and whether there must be a sandbox.
    model : LocalModel
        The plan's base model.
    root : Path
        A new private folder; the caller removes it afterwards.
    mock : Path or None
        Mock data of the plan's task that there are already; else they are made.
    evaluate : bool
        Measure the held-out loss, before and after.
    watch : Callable[[], object]
        Called about four times a second; what it raises ends the trial.
    """

    request: CodeRequest
    plan: Plan
    resources: ResourcesChoice
    model: LocalModel
    root: Path
    mock: Path | None = None
    evaluate: bool = False
    watch: Callable[[], object] = lambda: None
    _marks: list[float] = field(default_factory=list, init=False)

    def run(self, on_step: OnStep = lambda step, steps: None) -> DryRun:
        """Train as a real round would, and return what that showed.

        Raises
        ------
        BaseException
            Whatever ``watch`` raises.
        """
        training = self._training()
        output, prepared = training.folder.output("try"), training.prepared
        outcome, reason, metrics = "passed", "", {}
        heldout: list[float | None] = [None, None]
        started = time.monotonic()
        try:
            training.start()
            started = time.monotonic()
            self._train(training, output, on_step)
            seconds = time.monotonic() - started
            check_update(output / "adapter_after.safetensors", load_state(training.folder.adapter(0)), self.plan, 1)
            bounds = metric_bounds(self.plan, examples=prepared.examples, heldout_examples=prepared.heldout_examples)
            metrics = check_metrics(output / "metrics.json", self.plan.leaving_metrics, bounds)
            heldout = self._losses(training, output) if self.evaluate else heldout
        except GatekeeperError as error:
            seconds, outcome, reason = time.monotonic() - started, "refused", error.what
        except TrainingError as error:
            seconds, outcome, reason = time.monotonic() - started, "failed", error.what
        finally:
            walls = training.walls if training.is_started else UNKNOWN_WALLS
            training.stop()
        return DryRun(
            study=self.request.study,
            tried_s=round(time.time(), 3),
            outcome=outcome,
            reason=visible(reason, 500),
            walls=walls,
            steps=self.plan.training.steps,
            threads=self.resources.threads,
            examples=prepared.examples,
            seconds=round(seconds, 3),
            round_s=self._round_seconds(seconds, started) if outcome != "failed" else None,
            peak_memory_bytes=training.report.peak_memory_bytes or None,
            tried=tuple(visible(attempt) for attempt in sorted(training.report.tried)),
            metrics=metrics,
            heldout_before=heldout[0],
            heldout_after=heldout[1],
            log=last_lines(output / LOG, MOST_LOG_LINES),
        )

    def _training(self) -> LocalTraining:
        """Return the training of a real round, with mock examples in the place of a domain's."""
        bundle = private_folder(self.root / "bundle")
        for name, text in self.request.files.items():  # what was read and digested is what runs
            write_atomic(bundle / name, text.encode(), mode=0o400)
        folder = StudyFolder(self.root / "study")
        save_state(starting_adapter(self.model.folder, self.plan.lora, self.plan.training.seed), folder.adapter(0))
        return LocalTraining(
            plan=self.plan,
            folder=folder,
            recipe=bundle / "train.py",
            prepared=_mock_examples(self.mock or self._made(), private_folder(self.root / "mock")),
            model=self.model,
            resources=self.resources,
        )

    def _made(self) -> Path:
        made = self.root / "made"
        write_mock(made, seed=0, task=self.request.plan.task, files=self.request.files)
        return made

    def _train(self, training: LocalTraining, output: Path, on_step: OnStep) -> None:
        def mark(step: int, steps: int) -> None:
            self._marks.append(time.monotonic())
            on_step(step, steps)

        private = _private(self.plan, training.prepared.patients)
        training.run("train", 1, 0, output, mark, watch=self.watch, private=private)

    def _losses(self, training: LocalTraining, trained: Path) -> list[float | None]:
        """Return the held-out loss of the adapter at the beginning, and of the trained one."""
        save_state(load_state(trained / "adapter_after.safetensors"), training.folder.adapter(1))
        losses = []
        for adapter in (0, 1):
            output = training.folder.output(f"loss-{adapter}")
            training.run("evaluate", 1, adapter, output, lambda step, steps: None, watch=self.watch)
            losses.append(load_metrics(output / "metrics.json").get("heldout_loss"))
        return losses

    def _round_seconds(self, seconds: float, started: float) -> float:
        """Estimate a real round: what this one took, and as many more steps as the plan has, long as the last one."""
        marks = [started, *self._marks]
        steps = len(self._marks)
        step = marks[-1] - marks[-2] if steps > 1 else seconds / self.plan.training.steps
        whole = self.request.plan.training
        more = whole.steps - self.plan.training.steps
        return round(min(seconds + step * more, float(whole.max_seconds)), 1)


def _private(plan: Plan, patients: int) -> PrivateSteps | None:
    """Return the noisy steps that are taken in the recipe's place where the plan protects each patient."""
    if plan.privacy is None or plan.privacy.unit != "patient":
        return None
    return private_steps(plan.privacy, planned_mechanism(plan, patients), patients)


def _mock_examples(mock: Path, folder: Path) -> PreparedData:
    """Copy mock examples, divided into those to train on and those held out."""
    lines = (mock / "examples.jsonl").read_bytes().splitlines(keepends=True)
    cut = max(1, min(int(len(lines) * _TRAINED_SHARE), len(lines) - 1))
    train, heldout = folder / "train.jsonl", folder / "heldout.jsonl"
    write_atomic(train, b"".join(lines[:cut]))
    write_atomic(heldout, b"".join(lines[cut:]))
    return PreparedData(
        folder=folder,
        digest=file_sha256(train),
        train=train,
        heldout=heldout,
        examples=cut,
        heldout_examples=len(lines) - cut,
        patients=_patients(lines[:cut]),
        heldout_patients=_patients(lines[cut:]),
    )


def _patients(lines: list[bytes]) -> int:
    return len({json.loads(line)["patient"] for line in lines})
