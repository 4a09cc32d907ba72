"""``fedpriv bench crosscloud``: the same study over slow links, in different modes: loss over wall clock, and bytes.

Real parts throughout: each domain a process in a network namespace behind a shaped link, the store an OpenSSH server,
bytes counted where they cross the link. ``docs/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.experiments.crosscloud.clouds import BESIDE_THE_STORE, Clouds
from fedpriv.experiments.crosscloud.curve import Point, curve_of, seconds_to
from fedpriv.experiments.crosscloud.links import Link
from fedpriv.experiments.crosscloud.modes import BASELINE, EVERY_LINEAR_LAYER, MODES, Mode, modes_named
from fedpriv.experiments.target import Target
from fedpriv.files import private_folder
from fedpriv.study import Plan
from fedpriv.study.plan import LoraChoice

OnProgress = Callable[[str, float], None]
LINKS = (Link(rate_mbps=100, delay_ms=10), Link(rate_mbps=20, delay_ms=50), Link(rate_mbps=2, delay_ms=150))
WANTED_PART = 0.5
SLACK = 0.01
"""The target loss is what the baseline ends with, and so much more: runs that are as good differ in their last digits.
The baseline is held to the same."""


@dataclass(frozen=True, kw_only=True)
class ModeReport:
    """What one mode did.

    Attributes
    ----------
    mode, words : str
        The mode.
    curve : tuple of Point
        Loss against wall clock.
    seconds : float
        From the start of the rounds to the study's end, where every domain holds the adapter.
    up_bytes, down_bytes : dict of str to int
        What crossed each domain's link in that time, headers, polls and repeated packets included.
    seconds_to_target : float or None
        Until the loss was at most the one that the baseline ends with; None if it never was.
    """

    mode: str
    words: str
    curve: tuple[Point, ...]
    seconds: float
    up_bytes: dict[str, int]
    down_bytes: dict[str, int]
    seconds_to_target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All modes, over the same links, data and seeds.

    Attributes
    ----------
    model : str
        Base model.
    links : dict of str to str
        Each domain's link in words; the researcher's beside the store.
    target_loss : float
        What the baseline ends with, and 1 % more.
    modes : tuple of ModeReport
        The baseline first.
    """

    model: str
    links: dict[str, str]
    target_loss: float
    modes: tuple[ModeReport, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains by their short names."""
        return tuple(self.modes[0].up_bytes)

    def part_of_baseline(self, report: ModeReport) -> float | None:
        """Return a mode's time to the target as a part of the baseline's; None if it did not reach it."""
        baseline = self.modes[0].seconds_to_target
        return None if report.seconds_to_target is None or not baseline else report.seconds_to_target / baseline

    def as_json(self) -> dict[str, Any]:
        """Return everything, the parts and the targets included."""
        return asdict(self) | {
            "part_of_baseline": {report.mode: self.part_of_baseline(report) for report in self.modes},
            "targets": [asdict(target) for target in targets(self)],
        }


def targets(report: Report) -> list[Target]:
    """Return what must be reached, and what was: by the fastest mode that is not the baseline."""
    parts = {mode.mode: part for mode in report.modes[1:] if (part := report.part_of_baseline(mode)) is not None}
    fastest = min(parts, key=lambda name: parts[name], default=None)
    return [
        Target(
            what=f"wall time to within {SLACK:.0%} of the loss that {BASELINE} ends with, as a part of its own",
            wanted=f"<= {WANTED_PART:.2f}",
            measured="not reached" if fastest is None else f"{parts[fastest]:.2f} ({fastest})",
            met=fastest is not None and parts[fastest] <= WANTED_PART,
        )
    ]


def run_crosscloud_bench(
    *,
    model: str = "smollm2-135m-instruct",
    links: Sequence[Link] = LINKS,
    modes: tuple[str, ...] = tuple(MODES),
    rounds: int = 5,
    steps: int = 4,
    rank: int = 16,
    max_seconds: float = 3600,
    on_progress: OnProgress = lambda what, done: None,
) -> Report:
    """Run every mode, one after the other.

    Parameters
    ----------
    model : str
        Base model.
    links : sequence of Link
        One for each domain.
    modes : tuple of str
        What to compare with the baseline.
    rounds, steps : int
        Of the baseline; modes may have more rounds (:class:`Mode`).
    rank : int
        Of LoRA, on every linear layer.
    max_seconds : float
        For one mode.
    on_progress : Callable[[str, float], None]
        Called with what is run and the part that is done.

    Raises
    ------
    ConfigError
        If a mode is unknown, or this machine cannot make network namespaces or run an SFTP server.
    StudyError
        If a study fails or takes too long.
    """
    chosen, reports = modes_named(modes), []
    with tempfile.TemporaryDirectory(prefix="fedpriv-crosscloud-") as name:
        on_progress("domains, links and store", 0.0)
        with Clouds.open(links, private_folder(Path(name)), model=model) as clouds:
            for number, mode in enumerate(chosen):
                on_progress(mode.name, number / len(chosen))

                def on_round(done: int, mode: Mode = mode, number: int = number) -> None:
                    part = (number + done / (mode.rounds * rounds + 1)) / len(chosen)
                    on_progress(f"{mode.name}: {done} of {mode.rounds * rounds} rounds", part)

                base = clouds.federation.plan(rounds=mode.rounds * rounds, steps=steps)
                lora = LoraChoice(rank=rank, alpha=2 * rank, targets=EVERY_LINEAR_LAYER)
                plan = mode.plan(base.model_copy(update={"lora": lora}))
                reports.append(_run(clouds, mode, plan, max_seconds, on_round))
            shown = {domain: clouds.bed.link(place).shown for domain, place in clouds.cloud_of.items()}
    target = reports[0].curve[-1].loss * (1 + SLACK)
    return Report(
        model=model,
        links=shown | {"researcher": BESIDE_THE_STORE.shown},
        target_loss=target,
        modes=tuple(_with_target(report, target) for report in reports),
    )


def _run(clouds: Clouds, mode: Mode, plan: Plan, max_seconds: float, on_round: Callable[[int], None]) -> ModeReport:
    def look(record: dict[str, Any]) -> None:
        if record["event"] == "RoundFinished":
            on_round(record["round"])

    clouds.submit(mode.name, plan, max_seconds)
    before = clouds.traffic()
    records = clouds.run(mode.name, max_seconds, look)
    crossed = {name: counts.since(before[name]) for name, counts in clouds.traffic().items()}
    times = [record["time_s"] for record in records if record["event"] in ("StudyStarted", "StudyFinished")]
    return ModeReport(
        mode=mode.name,
        words=mode.words,
        curve=curve_of(records),
        seconds=round(times[-1] - times[0], 3),
        up_bytes={name: counts.up_bytes for name, counts in crossed.items()},
        down_bytes={name: counts.down_bytes for name, counts in crossed.items()},
    )


def _with_target(report: ModeReport, loss: float) -> ModeReport:
    return ModeReport(**{**vars(report), "seconds_to_target": seconds_to(report.curve, loss)})
