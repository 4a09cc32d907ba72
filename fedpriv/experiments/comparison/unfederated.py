"""The two methods without a federation: all notes in one place, and each domain alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedpriv.clinical import PreparedData
from fedpriv.experiments.comparison.bed import Bed, cores
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.meter import ProcessMeter
from fedpriv.experiments.comparison.quality import quality_of
from fedpriv.experiments.comparison.record import Record
from fedpriv.experiments.trusted_jobs import TrustedJobs
from fedpriv.study import Plan


def run_unfederated(case: Case, bed: Bed, folder: Path) -> Record:
    """Train as a case says and measure it; see :class:`Record`.

    Rounds and steps are those of the federated methods. A step of ``centralised`` takes as many examples as one step
    of all domains together, so that the work is the same.

    Raises
    ------
    TrainingError
        If a job fails.
    """
    plan = bed.plan(case)
    shards = bed.shards(task=plan.task)
    trained_on = dict(shards)
    if case.method == "centralised":
        trained_on = {"everybody": _joined(shards, folder / "everybody")}
        batch = plan.training.batch_size * len(shards)
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"batch_size": batch})})
    with ProcessMeter() as meter, TrustedJobs(plan, bed.model, folder / "jobs", threads=cores()) as jobs:
        adapters = [_trained(jobs, plan, data, folder / "trained" / name) for name, data in trained_on.items()]
    quality = quality_of(bed.judge(plan), shards, adapters, folder / "quality")
    leaving = sum(data.train.stat().st_size for data in shards.values()) if case.method == "centralised" else 0
    return Record(
        case=case,
        how="processes",
        parameters=0,
        rounds=plan.training.rounds,
        bytes_up=leaving // len(shards),
        bytes_down=0,
        cost=meter.cost(),
        quality=quality,
    )


def _trained(jobs: TrustedJobs, plan: Plan, data: PreparedData, folder: Path) -> Path:
    """Train all rounds, with the losses that a study measures on its way."""
    adapter = jobs.start_adapter()
    for number in range(1, plan.training.rounds + 1):
        adapter = jobs.train(data, adapter, number, folder / f"round-{number}", evaluate=True)
    jobs.evaluate(data, adapter, folder / "after")
    return adapter


def _joined(shards: Mapping[str, PreparedData], folder: Path) -> PreparedData:
    """Return the shards as one."""
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = folder / "train.jsonl", folder / "heldout.jsonl"
    for path, of in ((train, "train"), (heldout, "heldout")):
        path.write_text("".join(getattr(data, of).read_text(encoding="utf-8") for data in shards.values()), "utf-8")
    return replace(
        next(iter(shards.values())),
        train=train,
        heldout=heldout,
        examples=sum(data.examples for data in shards.values()),
        heldout_examples=sum(data.heldout_examples for data in shards.values()),
    )
