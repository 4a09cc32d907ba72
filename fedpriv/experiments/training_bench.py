"""``fedpriv bench training``: tokens a second and memory of a local round, beside ``transformers.Trainer`` with peft.

Same examples in the same order, base model, adapter, batch, steps, learning rate and optimizer. Every run is a fresh
process; the sides take turns. ``docs/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain.gpu import gpu_files
from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments.target import Target
from fedpriv.experiments.training_case import Case
from fedpriv.files import private_folder
from fedpriv.training.base_model import ensure_model
from fedpriv.training.device import DeviceChoice

OnProgress = Callable[[str, float], None]
LEAST_SPEEDUP = 1.5
MOST_LOSS_DIFFERENCE = 0.01
SIDES = {
    "fedpriv": {"side": "fedpriv", "precision": "auto"},
    "fedpriv, float32": {"side": "fedpriv", "precision": "float32"},
    "fedpriv, checkpointing": {"side": "fedpriv", "precision": "auto", "checkpointing": True},
    "Trainer": {"side": "trainer", "precision": "float32"},
    "Trainer, bf16": {"side": "trainer", "precision": "bfloat16"},
}
"""What is measured: ``fedpriv`` and ``Trainer``, each as it comes, are what the targets are about."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What was measured of one way to train.

    Attributes
    ----------
    tokens_per_s : list of float
        Of each run: tokens of its examples, without padding, by wall clock of the training, the model being loaded.
    peak_bytes : int
        Most memory of the process, the most of the runs, loading included.
    heldout_loss : float
        Of the adapter that it made, in float32, by the same code for every side; nats a token.
    """

    tokens_per_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    heldout_loss: float = 0.0

    @property
    def median(self) -> float:
        """Median tokens a second."""
        return statistics.median(self.tokens_per_s)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All sides, and what they were measured with; ``loss_before`` is that of the untrained adapter."""

    model: str
    tables: str
    examples: int
    settings: dict[str, Any]
    sides: dict[str, Side]
    load: float
    cores: int

    @property
    def speedup(self) -> float:
        """Tokens a second of fedpriv over those of Trainer: the median of the ratios of runs that followed each other.

        Other work on the machine slows down both runs of a turn more alike than runs of different turns.
        """
        ours, theirs = self.sides["fedpriv"], self.sides["Trainer"]
        return statistics.median(a / b for a, b in zip(ours.tokens_per_s, theirs.tokens_per_s, strict=True))

    @property
    def memory_ratio(self) -> float:
        """Peak memory of fedpriv over that of Trainer."""
        return self.sides["fedpriv"].peak_bytes / self.sides["Trainer"].peak_bytes

    @property
    def loss_difference(self) -> float:
        """Relative difference of the held-out losses."""
        theirs = self.sides["Trainer"].heldout_loss
        return abs(self.sides["fedpriv"].heldout_loss - theirs) / theirs

    def as_json(self) -> dict[str, Any]:
        """Return everything, the ratios and the targets included."""
        return asdict(self) | {
            "speedup": self.speedup,
            "memory_ratio": self.memory_ratio,
            "loss_difference": self.loss_difference,
            "targets": [asdict(target) for target in targets(self)],
        }


def targets(report: Report) -> list[Target]:
    """Return what must be reached, and what was."""
    return [
        Target(
            what="tokens a second over Trainer's",
            wanted=f">= {LEAST_SPEEDUP} x",
            measured=f"{report.speedup:.2f} x",
            met=report.speedup >= LEAST_SPEEDUP,
        ),
        Target(
            what="peak memory over Trainer's",
            wanted="<= 1 x",
            measured=f"{report.memory_ratio:.2f} x",
            met=report.memory_ratio <= 1,
        ),
        Target(
            what="difference of the held-out losses",
            wanted=f"<= {MOST_LOSS_DIFFERENCE:.0%}",
            measured=f"{report.loss_difference:.3%}",
            met=report.loss_difference <= MOST_LOSS_DIFFERENCE,
        ),
    ]


def run_training_bench(
    *,
    model: str = "smollm2-135m-instruct",
    tables: Path | None = None,
    batch_size: int = 8,
    steps: int = 6,
    max_tokens: int = 512,
    learning_rate: float = 5e-4,
    threads: int = 2,
    device: DeviceChoice = "cpu",
    repeats: int = 3,
    sides: tuple[str, ...] = tuple(SIDES),
    on_progress: OnProgress = lambda what, done: None,
) -> Report:
    """Measure all sides, ``repeats`` times in turn; fifteen minutes on two quiet cores.

    Parameters
    ----------
    tables : Path, optional
        Folder with MIMIC-III tables; by default synthetic ones are made.
    device : {"cpu", "cuda", "auto"}
        What trains, on all sides. On a GPU, memory is what torch takes of it.
    on_progress : Callable[[str, float], None]
        Called with what is measured and the part that is done.

    Raises
    ------
    ConfigError
        If there is no GPU and one is asked for.
    StudyError
        If a run fails.
    """
    if device == "cuda" and not gpu_files(device):
        what = "There is no NVIDIA GPU here (/dev/nvidia0)"
        raise ConfigError(what, kept="Nothing was run", todo="leave out --device cuda")
    found = ensure_model(model)
    with tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as name:
        folder = private_folder(Path(name))
        if tables is None:
            write_synthetic(folder / "tables", seed=0)
        prepared = prepare(tables or folder / "tables", folder / "data")
        settings = {
            "batch_size": batch_size,
            "steps": steps,
            "max_tokens": max_tokens,
            "learning_rate": learning_rate,
            "threads": threads,
            "device": device,
        }
        files = {"model": str(found.folder), "train": str(prepared.train), "heldout": str(prepared.heldout)}
        measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        runs = [(turn, side) for turn in range(repeats) for side in sides]
        for number, (turn, side) in enumerate(runs):
            on_progress(f"{side}, run {turn + 1} of {repeats}", number / (len(runs) + 1))
            out = str(folder / f"{sides.index(side)}.safetensors")
            case = Case.model_validate(SIDES[side] | files | settings | {"out": out})
            one = _in_own_process(case)
            if turn == 0:
                one |= {"heldout_loss": _in_own_process(case.model_copy(update=_EVALUATE))["heldout_loss"]}
            measured[side].append(one)
    return Report(
        model=model,
        tables="given" if tables else "synthetic",
        examples=prepared.examples,
        settings=settings,
        sides={side: _side(results) for side, results in measured.items()},
        load=os.getloadavg()[0],
        cores=os.cpu_count() or 1,
    )


_EVALUATE = {"side": "evaluate", "precision": "float32"}


def _side(results: list[dict[str, float]]) -> Side:
    return Side(
        tokens_per_s=[result["tokens"] / result["seconds"] for result in results],
        peak_bytes=int(max(result["peak_bytes"] for result in results)),
        heldout_loss=results[0]["heldout_loss"],
    )


def _in_own_process(case: Case) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "fedpriv.experiments.training_case", case.model_dump_json()]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(case.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudyError(f"A run of the benchmark failed ({last[:300]})", todo="report this, please")
    return json.loads(done.stdout.splitlines()[-1])
