"""One case as it is done for real: every party a process of its own, a study from request to released adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from fedpriv.experiments.comparison.bed import Bed
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.meter import ProcessMeter
from fedpriv.experiments.comparison.quality import quality_of
from fedpriv.experiments.comparison.record import Record
from fedpriv.researcher import Study
from fedpriv.researcher.events import Event, RoundFinished
from fedpriv.training.recipe import stock_recipe


def run_federated(case: Case, bed: Bed, folder: Path) -> Record:
    """Run a case's study in the bed's federation and measure it; see :class:`Record`.

    Raises
    ------
    FedprivError
        Any of a study's.
    """
    federation, plan = bed.running(), bed.plan(case)
    rounds: list[RoundFinished] = []

    def keep(event: Event) -> None:
        if isinstance(event, RoundFinished):
            rounds.append(event)

    study = Study.create(federation.researcher, federation.researcher.free_name("case"), plan, recipe=stock_recipe())
    study.submit()
    if case.part == "mortality":  # a standing approval is about the default task alone
        federation.approve(study)
    study.wait_for_decisions(federation.watch)
    services = [federation.serve_pid(name) for name in federation.domains]
    with ProcessMeter(services) as meter:
        study.run(federation.watch, keep)
    adapter = study.release(folder / "adapter", federation.watch) / "adapter_model.safetensors"
    quality = quality_of(bed.judge(plan), bed.shards(task=plan.task), [adapter], folder / "quality")
    return Record(
        case=case,
        how="processes",
        parameters=rounds[-1].parameters,
        rounds=len(rounds),
        bytes_up=round(mean(event.bytes_up for event in rounds)),
        bytes_down=round(mean(event.bytes_down for event in rounds)),
        cost=meter.cost(parts_of(rounds)),
        quality=quality,
        weights=rounds[-1].weights,
    )


def parts_of(rounds: Sequence[RoundFinished]) -> dict[str, float]:
    """Return the mean seconds of every part of a round."""
    names = {name for event in rounds for name in event.seconds}
    return {name: round(mean(event.seconds.get(name, 0.0) for event in rounds), 4) for name in sorted(names)}
