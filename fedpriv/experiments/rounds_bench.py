"""``fedpriv bench rounds``: what orchestration costs beside training, and how adding grows with the number of domains.

``docs/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import FedprivError
from fedpriv.experiments.adding_slope import Slope, measure_adding
from fedpriv.experiments.flower.environment import flower_rounds, flower_version
from fedpriv.experiments.round_overhead import Overhead, measure_rounds
from fedpriv.experiments.target import Target
from fedpriv.files import private_folder

OnProgress = Callable[[str, float], None]
DOMAINS = (4, 16, 64, 256)
LARGE, SMALL = 5_000_000, 460_800
"""Parameters of the updates that are added: LoRA of a model of some billions, and of SmolLM2-135M."""

_MOST_OVERHEAD_S, _MOST_RATIO = 2.0, 2.0
_MOST_GROWTH, _FLAT_MB, _LEAST_LINEAR = 1.2, 4.0, 0.98


@dataclass(frozen=True, kw_only=True)
class Flower:
    """Rounds of Flower's simulation with the same payload, in which nobody trains.

    Attributes
    ----------
    version : str
        Of Flower.
    rounds_s : tuple of float
        Wall clock of each round; empty where it was not measured.
    why_not : str
        Why it was not.
    """

    version: str
    rounds_s: tuple[float, ...] = ()
    why_not: str = ""

    @property
    def median_s(self) -> float | None:
        """The median round, or None."""
        return statistics.median(self.rounds_s) if self.rounds_s else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured.

    Attributes
    ----------
    overhead : Overhead
        Rounds of a real federation.
    flower : Flower
        What they are compared with, right after them.
    adding : Slope
        Adding sealed updates.
    cores : int
        Of this machine.
    load : float
        Processes that ran or waited, on average over the last minute of the rounds; above ``cores``, they queue.
    """

    overhead: Overhead
    flower: Flower
    adding: Slope
    cores: int
    load: float

    @property
    def over_flower(self) -> float | None:
        """The median overhead over Flower's median round."""
        return self.overhead.median_s / self.flower.median_s if self.flower.median_s else None

    @property
    def memory_growth_mb(self) -> float:
        """Memory of adding the most updates, over that of adding the fewest, MB."""
        return self.adding.points[-1].memory_mb - self.adding.points[0].memory_mb

    def as_json(self) -> dict[str, Any]:
        """Return everything, medians, ratios and targets included."""
        body = asdict(self)
        body["overhead"] |= {
            "median_s": self.overhead.median_s,
            "worst_s": self.overhead.worst_s,
            "parts_s": self.overhead.parts,
            "rounds": [asdict(cost) | {"overhead_s": cost.overhead_s} for cost in self.overhead.rounds],
        }
        body["flower"] |= {"median_s": self.flower.median_s, "overhead_over_flower": self.over_flower}
        body["adding"] |= {"how": _how(self.adding), "memory_growth_mb": self.memory_growth_mb}
        return body | {"targets": [asdict(target) for target in targets(self)]}


def run_rounds_bench(
    *,
    model: str = "smollm2-135m-instruct",
    rounds: int = 7,
    quick: bool = False,
    with_flower: bool = True,
    on_progress: OnProgress = lambda what, done: None,
) -> Report:
    """Measure everything: about ten minutes on two quiet cores, most of them for sealing 256 large updates.

    Parameters
    ----------
    model : str
        Base model of the rounds.
    rounds : int
        How many rounds are counted.
    quick : bool
        Add small updates, and time fewer rounds.
    with_flower : bool
        Whether Flower is measured too; it is installed in an environment of its own at the first time.
    on_progress : callable
        Called with what is measured and which part of the whole is done.
    """
    rounds = min(rounds, 3) if quick else rounds
    with tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as name:
        folder = private_folder(Path(name))
        on_progress(f"a federation with {model}", 0.0)
        overhead = measure_rounds(
            folder / "federation",
            model=model,
            rounds=rounds,
            on_progress=lambda what, done: on_progress(what, 0.25 * done),
        )
        load = os.getloadavg()[0]
        on_progress("Flower's simulation of the same payload", 0.25)
        flower = _flower(overhead, rounds) if with_flower else Flower(version=flower_version(), why_not="left out")
        adding = measure_adding(
            private_folder(folder / "adding"),
            parameters=SMALL if quick else LARGE,
            domains=DOMAINS,
            on_progress=lambda what, done: on_progress(what, 0.3 + 0.7 * done),
        )
    return Report(overhead=overhead, flower=flower, adding=adding, cores=os.cpu_count() or 1, load=load)


def _flower(overhead: Overhead, rounds: int) -> Flower:
    """Measure Flower with the update's tensors as plain float32; without it the other figures stand."""
    try:
        seconds = flower_rounds(overhead.tensors, clients=overhead.domains, rounds=rounds)
    except FedprivError as error:
        return Flower(version=flower_version(), why_not=error.what)
    return Flower(version=flower_version(), rounds_s=tuple(seconds))


def _how(slope: Slope) -> str:
    last = slope.points[-1].domains
    return (
        f"every update was sealed by a member of a cohort of {last}, with masks towards all {last - 1} others; "
        "smaller sums are of its first members; the sum of all was unlocked, opened and compared with what was sealed"
    )


def targets(report: Report) -> list[Target]:
    """Return what must be reached, and whether it was."""
    overhead, slope, ratio = report.overhead, report.adding, report.over_flower
    few, many = slope.points[0], slope.points[-1]
    flat = many.memory_mb <= max(_MOST_GROWTH * few.memory_mb, few.memory_mb + _FLAT_MB)
    return [
        Target(
            what=f"seconds of a round beside training, {overhead.domains} domains, {overhead.model} (median)",
            wanted=f"<= {_MOST_OVERHEAD_S:g}",
            measured=f"{overhead.median_s:.2f} (worst {overhead.worst_s:.2f})",
            met=overhead.median_s <= _MOST_OVERHEAD_S,
        ),
        Target(
            what=f"the same over Flower {report.flower.version}'s simulated round of the same payload",
            wanted=f"<= {_MOST_RATIO:g} x",
            measured=f"{ratio:.2f} x ({report.flower.median_s:.2f} s)" if ratio else f"- ({report.flower.why_not})",
            met=ratio <= _MOST_RATIO if ratio else None,
        ),
        Target(
            what=f"memory of adding {many.domains} updates of {slope.parameters / 1e6:.2f}M against {few.domains}",
            wanted=f"<= {_MOST_GROWTH:g} x or {_FLAT_MB:g} MB more",
            measured=f"{many.memory_mb:.1f} MB against {few.memory_mb:.1f} MB",
            met=flat,
        ),
        Target(
            what=f"CPU time of adding, {few.domains} to {many.domains} updates: a straight line (R squared)",
            wanted=f">= {_LEAST_LINEAR:g}",
            measured=f"{slope.cpu.r_squared:.4f} ({slope.cpu.ms_per_domain:.1f} ms a domain, "
            f"{slope.cpu.ns_per_parameter:.2f} ns a parameter; wall clock {slope.seconds.r_squared:.4f})",
            met=slope.cpu.r_squared >= _LEAST_LINEAR,
        ),
    ]
