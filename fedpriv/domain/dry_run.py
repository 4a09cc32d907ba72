"""A dry run: a request's code, in the sandbox of a real round, on made-up patients, before anybody approves it."""

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
from fedpriv.domain import sandbox
from fedpriv.domain.domain import Domain
from fedpriv.domain.finding import visible
from fedpriv.domain.gatekeeper import check_metrics, check_update, metric_bounds
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.log_tail import last_lines
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ExistsError, GatekeeperError, RefusedError, TrainingError
from fedpriv.files import file_sha256, folder_lock, private_folder, write_atomic, write_json
from fedpriv.study import CodeRequest, Plan, TaskChoice
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section
from fedpriv.training.adapter import load_state, save_state, starting_adapter
from fedpriv.training.base_model import LocalModel, ensure_model
from fedpriv.training.jobs import LOG
from fedpriv.training.private_round import PrivateSteps

MOST_STEPS = 2
MOST_SECONDS = 300
MOST_LOG_LINES = 40
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
        What stood around it, such as ``bubblewrap and landlock and seccomp``, or ``none``.
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
    log: tuple[str, ...] = ()


def dry_run(
    domain: Domain,
    stored: StoredRequest,
    on_step: OnStep,
    *,
    without_sandbox: bool = False,
    cache: Path | None = None,
    max_seconds: int = MOST_SECONDS,
) -> DryRun:
    """Run a request's code for at most two steps on mock data, as a real round would, and keep what it showed.

    Guarantee: the code gets copies of mock examples, which depend on no patient, the base model and a new adapter.
    Inside bubblewrap it can read nothing else of the domain, and has no network.
    Assumption: without bubblewrap there are no walls; therefore this refuses then, unless ``without_sandbox``.

    Parameters
    ----------
    on_step : Callable[[int, int], None]
        Called with (step, steps).
    without_sandbox : bool, default False
        Run even where the domain's setting and machine give no sandbox.
    cache : Path, optional
        Where base models are; by default fedpriv's cache. A missing one is fetched.
    max_seconds : int, default 300
        The plan's time limit, or this one if it is less, in seconds.

    Raises
    ------
    RefusedError
        If there would be no sandbox, or the base model has other weights than the plan names.
    ModelError
        If the base model cannot be had.
    LockError
        If another dry run of this domain is going on.
    """
    plan = _shorter(stored.request.plan, max_seconds)
    setting = domain.config.resources.sandbox
    if not without_sandbox and (setting == "off" or sandbox.bubblewrap() is None):
        raise RefusedError(
            "There is no sandbox here, so the code could read everything that you can",
            kept="Nothing was run",
            todo="install bubblewrap (see `fedpriv doctor`), set resources.sandbox to required, and try again",
        )
    model = ensure_model(plan.base_model.name, cache=cache)
    if plan.base_model.digest not in (None, model.digest):
        raise RefusedError("The base model here has other weights than the plan names", kept="Nothing was run")
    with _workspace(domain) as root:
        result = _try(_Trial(domain=domain, stored=stored, plan=plan, root=root, model=model), on_step)
    write_json(domain.requests.dry_run_path(result.study), result.model_dump(mode="json"))
    domain.ledger.append(
        "request.tried", study=result.study, outcome=result.outcome, walls=result.walls, tried=list(result.tried)
    )
    return result


def last_dry_run(domain: Domain, study: str) -> DryRun | None:
    """Return what the last dry run of a request showed, or None if there was none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        result = DryRun.model_validate_json(domain.requests.dry_run_path(study).read_bytes())
        return result if result.study == study else None
    return None


@contextlib.contextmanager
def _workspace(domain: Domain) -> Iterator[Path]:
    """Give an empty private folder to one dry run at a time, and remove it, and what a killed one left, afterwards."""
    tries = domain.folder.state / "tries"
    lock = domain.folder.state / "try.lock"
    with folder_lock(lock, holder="The dry run of this domain", todo="wait until it is done and try again"):
        shutil.rmtree(tries, ignore_errors=True)
        try:
            yield private_folder(tries)
        finally:
            shutil.rmtree(tries, ignore_errors=True)


def _shorter(plan: Plan, max_seconds: int) -> Plan:
    limits = {
        "steps": min(plan.training.steps, MOST_STEPS),
        "max_seconds": max(5, min(plan.training.max_seconds, max_seconds)),
    }
    return plan.model_copy(update={"training": plan.training.model_copy(update=limits)})


@dataclass(kw_only=True)
class _Trial:
    """One dry run at work, in a folder of its own."""

    domain: Domain
    stored: StoredRequest
    plan: Plan
    root: Path
    model: LocalModel
    marks: list[float] = field(default_factory=list)

    def training(self) -> LocalTraining:
        """Return the training of a real round, with mock examples in the place of the domain's."""
        bundle = private_folder(self.root / "bundle")
        for name, text in self.stored.request.files.items():  # what was read and digested is what runs
            write_atomic(bundle / name, text.encode(), mode=0o400)
        folder = StudyFolder(self.root / "study")
        save_state(starting_adapter(self.model.folder, self.plan.lora, self.plan.training.seed), folder.adapter(0))
        return LocalTraining(
            plan=self.plan,
            folder=folder,
            recipe=bundle / "train.py",
            prepared=_mock_examples(self.domain, self.stored.request, private_folder(self.root / "mock")),
            model=self.model,
            resources=self.domain.config.resources,
        )


def _try(trial: _Trial, on_step: OnStep) -> DryRun:
    training = trial.training()
    output = training.folder.output("try")

    def mark(step: int, steps: int) -> None:
        trial.marks.append(time.monotonic())
        on_step(step, steps)

    outcome, reason, metrics, started = "passed", "", {}, time.monotonic()
    try:
        training.start()
        started = time.monotonic()
        training.run("train", 1, 0, output, mark, private=_private(trial.plan, training.prepared.patients))
        check_update(output / "adapter_after.safetensors", load_state(training.folder.adapter(0)), trial.plan, 1)
        prepared = training.prepared
        bounds = metric_bounds(trial.plan, examples=prepared.examples, heldout_examples=prepared.heldout_examples)
        metrics = check_metrics(output / "metrics.json", trial.plan.leaving_metrics, bounds)
    except GatekeeperError as error:
        outcome, reason = "refused", error.what
    except TrainingError as error:
        outcome, reason = "failed", error.what
    finally:
        seconds, walls = time.monotonic() - started, training.walls
        training.stop()
    return DryRun(
        study=trial.stored.request.study,
        tried_s=round(time.time(), 3),
        outcome=outcome,
        reason=visible(reason, 500),
        walls=walls,
        steps=trial.plan.training.steps,
        threads=trial.domain.config.resources.threads,
        examples=training.prepared.examples,
        seconds=round(seconds, 3),
        round_s=_round_seconds(trial, seconds, started) if outcome != "failed" else None,
        peak_memory_bytes=training.report.peak_memory_bytes or None,
        tried=tuple(visible(attempt) for attempt in sorted(training.report.tried)),
        metrics=metrics,
        log=last_lines(output / LOG, MOST_LOG_LINES),
    )


def _private(plan: Plan, patients: int) -> PrivateSteps | None:
    """Return the noisy steps that are taken in the recipe's place where the plan protects each patient."""
    if plan.privacy is None or plan.privacy.unit != "patient":
        return None
    return private_steps(plan.privacy, planned_mechanism(plan, patients), patients)


def _round_seconds(trial: _Trial, seconds: float, started: float) -> float:
    """Estimate a real round: what this one took, and as many more steps as the plan has, as long as the last one."""
    marks = [started, *trial.marks]
    steps = len(trial.marks)
    step = marks[-1] - marks[-2] if steps > 1 else seconds / trial.plan.training.steps
    whole = trial.stored.request.plan.training
    more = whole.steps - trial.plan.training.steps
    return round(min(seconds + step * more, float(whole.max_seconds)), 1)


def _mock_examples(domain: Domain, request: CodeRequest, folder: Path) -> PreparedData:
    """Copy mock examples of the request's task, divided into those to train on and those held out."""
    task = request.plan.task
    mock = domain.folder.state / "mock" if task == TaskChoice() else folder.with_name("made")
    if not (mock / "schema.json").exists():
        with contextlib.suppress(ExistsError):  # the service may just have made it
            write_mock(mock, seed=0, task=task, files=request.files)
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
