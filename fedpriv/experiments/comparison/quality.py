"""How good an adapter is on the held-out notes of all domains: one evaluator for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from fedpriv.clinical import PreparedData
from fedpriv.experiments.comparison.record import Quality
from fedpriv.experiments.trusted_jobs import TrustedJobs
from fedpriv.training.evaluate import MOST


def quality_of(
    jobs: TrustedJobs, shards: Mapping[str, PreparedData], adapters: Sequence[Path], folder: Path
) -> Quality:
    """Evaluate adapters at every domain, as their mean, beside the adapter that all began with.

    Only an experiment can: whoever runs it holds all the shards. ``folder`` is for what jobs write.

    Raises
    ------
    TrainingError
        If a job fails.
    """
    before = _everywhere(jobs, shards, jobs.start_adapter(), folder / "before")
    after = [_everywhere(jobs, shards, path, folder / str(number)) for number, path in enumerate(adapters)]
    tokens = sum(found["heldout_tokens"] for found in before.values())

    def loss(found: Mapping[str, Mapping[str, float]]) -> float:
        return sum(each["heldout_loss"] * each["heldout_tokens"] for each in found.values()) / tokens

    pooled = _joined(shards, folder / "pooled.jsonl")
    answers = [jobs.evaluate(pooled, path, folder / f"pooled-{n}") for n, path in enumerate(adapters)]
    asked = [found for found in answers if "heldout_auroc" in found]
    return Quality(
        loss_before=loss(before),
        loss=mean(loss(found) for found in after),
        loss_by_domain={name: mean(found[name]["heldout_loss"] for found in after) for name in shards},
        tokens=round(tokens),
        auroc=mean(found["heldout_auroc"] for found in asked) if asked else None,
        auroc_se=mean(found["heldout_auroc_se"] for found in asked) if asked else None,
    )


def _everywhere(
    jobs: TrustedJobs, shards: Mapping[str, PreparedData], adapter: Path, folder: Path
) -> dict[str, dict[str, float]]:
    return {name: jobs.evaluate(data, adapter, folder / name) for name, data in shards.items()}


def _joined(shards: Mapping[str, PreparedData], path: Path) -> PreparedData:
    """Return the held-out examples of all domains in one file, so many of each that all of it is looked at."""
    each = MOST // len(shards)
    lines = [line for data in shards.values() for line in _lines(data.heldout)[:each]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return replace(next(iter(shards.values())), heldout=path, heldout_examples=len(lines))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)
