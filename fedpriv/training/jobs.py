"""What the worker and its children say to each other, and the work that a child does. Imports torch only to work."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from fedpriv import errors
from fedpriv.errors import FedprivError, TrainingError
from fedpriv.files import write_json
from fedpriv.study.averaging import Averaging, trained_tensors
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.study.section import Section
from fedpriv.training.adapter import (
    AdapterState,
    check_state,
    layout_of,
    load_state,
    lora_layout,
    save_state,
)
from fedpriv.training.attempts import ATTEMPTS
from fedpriv.training.device import DeviceChoice
from fedpriv.training.examples import Encoder
from fedpriv.training.launch import Launch
from fedpriv.training.local_round import LocalContext, LocalOutcome, train_local
from fedpriv.training.private_round import PrivateSteps, train_private
from fedpriv.training.ranks import ranks_now
from fedpriv.training.recipe import load_recipe, recipe_line
from fedpriv.training.token_store import Side, write_tokens

JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,120}$")]
FolderPath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
JobKind = Literal["train", "evaluate", "tokenize"]

ADAPTER_AFTER = "adapter_after.safetensors"
METRICS = "metrics.json"
TOKENS = "tokens.safetensors"
LOG = "worker.log"
GRACE_S = 60.0
"""Seconds beyond ``training.max_seconds`` for loading, evaluating and writing; then the child is killed."""

Report = Callable[[int, int], None]


class Fence(Section):
    """What a child may touch and use up; the kernel refuses the rest (see :mod:`fedpriv.training.child`).

    With ``walls``, where the kernel has them: Landlock, so that only ``readable`` and ``writable`` can be reached, and
    a filter of system calls, so that a job is one process without sockets. The limits hold always; processes that do a
    job together have equal parts of ``memory_bytes``, which is null where CUDA's mappings would count, too.
    ``processes`` counts threads too, and only has a meaning in a user namespace of the sandbox's own.
    """

    readable: tuple[FolderPath, ...] = Field(max_length=64)
    writable: tuple[FolderPath, ...] = Field(max_length=16)
    walls: bool
    memory_bytes: int | None = Field(ge=2**20)
    file_bytes: int = Field(ge=2**20)
    cpu_s: int = Field(ge=1)
    processes: int | None = Field(default=None, ge=1)


class Job(Section):
    """One line that the worker reads: one piece of work for one child process.

    ``train``     run the recipe (or the stock training, if ``recipe`` is null) from ``adapter``: writes
                  ``adapter_after.safetensors`` and ``metrics.json``. With ``evaluate``, the held-out loss of the
                  starting adapter is measured first and put among the metrics. With ``private``, DP-SGD takes the
                  recipe's place.
    ``evaluate``  the held-out loss of ``adapter``: writes ``metrics.json``. Never runs the recipe.
    ``tokenize``  encode both files: writes ``tokens.safetensors``, to be kept under the name of ``tokens``. Never runs
                  the recipe.

    The other kinds read ``tokens`` where it is given, and encode the texts where that is not what it should be.
    """

    id: JobId
    job: JobKind
    model_folder: FolderPath
    out: FolderPath
    lora: LoraChoice
    training: TrainingChoice
    recipe: FolderPath | None = None
    adapter: FolderPath | None = None
    train: FolderPath | None = None
    heldout: FolderPath | None = None
    tokens: FolderPath | None = None
    private: PrivateSteps | None = None
    averaging: Averaging = "both"
    evaluate: bool = False
    round: int = Field(1, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(1, ge=1, le=1024)
    device: DeviceChoice = "cpu"
    launch: Launch | None = None
    fence: Fence | None = None

    @model_validator(mode="after")
    def _has_its_files(self) -> Job:
        needed = {
            "train": ["adapter", "train", *(["heldout"] if self.evaluate else [])],
            "evaluate": ["adapter", "heldout"],
            "tokenize": ["train", "heldout", "tokens"],
        }[self.job]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a job of kind {self.job} needs {', '.join(missing)}")
        if self.private is not None and (self.recipe is not None or self.job != "train"):
            raise ValueError("a private job trains, and runs no recipe")
        return self

    @property
    def runs_recipe(self) -> bool:
        """Whether code of the request runs in the child, so that nothing that it says can be trusted."""
        return self.recipe is not None and self.job == "train"

    @property
    def launched(self) -> bool:
        """Whether several processes do the job: training, but for DP-SGD, whose noise is drawn in one place."""
        return self.launch is not None and self.job == "train" and self.private is None

    @property
    def processes(self) -> int:
        """How many processes do the job."""
        return self.launch.processes if self.launch and self.launched else 1

    @property
    def threads_each(self) -> int:
        """Processor threads of each of its processes."""
        return max(1, self.threads // self.processes)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole job: the total of its progress."""
        return self.training.steps

    @property
    def wall_clock_s(self) -> float:
        """Seconds after which the child is killed."""
        return self.training.max_seconds + GRACE_S


def do_job(job: Job, report: Report) -> None:
    """Do the work of a job and write its files into ``job.out``. Called in the child, or in each of several.

    Raises
    ------
    BaseException
        Whatever the recipe raises.
    FedprivError
        If the model, the adapter or the examples cannot be used.
    """
    out = Path(job.out)
    if job.job == "evaluate":
        write_json(out / METRICS, _evaluate(job, _starting_adapter(job)))
    elif job.job == "tokenize":
        _tokenize(job, out / TOKENS)
    else:
        _train(job, report, out)


def _tokenize(job: Job, path: Path) -> None:
    encoder = Encoder(Path(job.model_folder), job.training.max_tokens)
    files: dict[Side, Path] = {"train": Path(job.train or ""), "heldout": Path(job.heldout or "")}
    write_tokens(path, files, encoder, name=Path(job.tokens or "").name)


def _starting_adapter(job: Job) -> AdapterState:
    layout = lora_layout(Path(job.model_folder), job.lora)
    return load_state(Path(job.adapter or ""), layout)


def _evaluate(job: Job, adapter: AdapterState) -> dict[str, float]:
    from fedpriv.training.evaluate import evaluate_local

    return evaluate_local(_context(job, adapter, job.round, lambda _step, _steps: None))


def _context(job: Job, adapter: AdapterState, round_number: int, report: Report) -> LocalContext:
    return LocalContext(
        model_folder=Path(job.model_folder),
        adapter=adapter,
        trained=trained_tensors(job.averaging, adapter, round_number),
        train=Path(job.train or ""),
        heldout=Path(job.heldout or ""),
        lora=job.lora,
        training=job.training,
        round=round_number,
        seed=job.seed,
        threads=job.threads_each,
        tokens=Path(job.tokens) if job.tokens else None,
        report=report,
    )


def _train(job: Job, report: Report, out: Path) -> None:
    adapter = _starting_adapter(job)
    first = ranks_now().first
    heldout = _evaluate(job, adapter) if job.evaluate and first else {}
    context = _context(job, adapter, job.round, report)
    if job.private is not None:
        outcome = _checked(train_private(context, job.private), adapter)
    else:
        train = load_recipe(Path(job.recipe)) if job.recipe else train_local
        outcome = _checked(train(context), adapter)
    if not first:
        return  # every rank has the same result, or all but the first one's counts for nothing
    save_state(outcome.adapter_after, out / ADAPTER_AFTER)
    write_json(out / METRICS, {**outcome.metrics, **heldout})


def _checked(outcome: object, before: AdapterState) -> LocalOutcome:
    """Refuse what is no outcome, with a reason that helps the recipe's author; the gatekeeper checks it again."""
    if not isinstance(outcome, LocalOutcome):
        raise TrainingError("train(context) in train.py did not return a LocalOutcome", todo="see the stock recipe")
    check_state(outcome.adapter_after, layout_of(before))
    if not all(isinstance(value, int | float) for value in outcome.metrics.values()):
        raise TrainingError("A metric that train(context) returned is not a number", todo="see the stock recipe")
    return outcome


_PUBLIC_TYPES = frozenset(
    name
    for module in (builtins, errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, BaseException)
) | {"OutOfMemoryError", "SafetensorError", "LinAlgError"}


def failure_message(job: Job, error: BaseException) -> dict[str, object]:
    """Return what a child tells the worker about its failure: type, line of ``train.py``, and words of our own."""
    text = str(error)[:1000] if isinstance(error, FedprivError) and not job.runs_recipe else ""
    return {"failed": type(error).__name__[:100], "line": recipe_line(error), "text": text}


def failure_reason(job: Job, message: dict[str, object]) -> str:
    """Return the reason that may leave the worker, from a child that may have run untrusted code.

    Where the recipe ran, only a public exception type and a line number that ``train.py`` has are passed on: the text
    of an exception, or a class named for the purpose, could carry data. Words pass where no recipe ran.
    """
    name = message.get("failed")
    name = name if isinstance(name, str) and name in _PUBLIC_TYPES else "an error of its own kind"
    text, line = message.get("text"), message.get("line")
    if not job.runs_recipe:
        return text[:1000] if isinstance(text, str) and text else f"The job failed with {name}."
    if type(line) is int and 0 < line <= _line_count(Path(job.recipe or "")):
        return f"The recipe failed with {name} in line {line} of train.py."
    return f"The recipe failed with {name}."


def _line_count(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError:
        return 0


def parse_attempt(message: dict[str, object]) -> str | None:
    """Return what a child says that its code tried, if it is one of the fixed words, else None."""
    attempt = message.get("tried")
    return attempt if isinstance(attempt, str) and attempt in ATTEMPTS else None


def parse_progress(job: Job, message: dict[str, object], last: int) -> int | None:
    """Return the step that a child reports if it may be passed on, else None.

    Progress is shown to the researcher, so a recipe must not be able to count out data with it: a step is a whole
    number of steps of this job, beyond the ``last`` one reported. The total comes from the job, not from the child.
    """
    step = message.get("step")
    return step if type(step) is int and last < step <= job.steps else None
