"""One case of a sweep, in one process: real keys, protection and training, with made-up links and clocks.

Sixteen domains of a language model do not fit one machine as processes; and only made-up links are the same each time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from fedpriv.experiments.comparison.bed import Bed, cores
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.federated import parts_of
from fedpriv.experiments.comparison.meter import ProcessMeter
from fedpriv.experiments.comparison.record import Cost, Quality, Record
from fedpriv.experiments.simulation import ModelTraining, SimulatedFederation, Trace
from fedpriv.experiments.simulation.training import Asked
from fedpriv.researcher.events import RoundFinished

RATES_MBPS = (100.0, 20.0, 2.0)
"""Of the domains' links, in turn."""


@dataclass
class _TimedTraining(ModelTraining):
    """Training that knows how much CPU time it took."""

    cpu_s: float = field(default=0.0)

    def work(self, asked: Asked) -> None:
        began = time.process_time()
        super().work(asked)
        self.cpu_s += time.process_time() - began


def run_simulated(case: Case, bed: Bed, folder: Path) -> Record:
    """Run a case's study in virtual time and measure it; see :class:`Record`.

    Raises
    ------
    FedprivError
        Any of a study's.
    """
    shards = bed.shards(case.domains)
    plan = bed.plan(case)
    sections: dict[str, Any] = {
        "base_model": plan.base_model.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "protection": plan.protection.model_dump(mode="json"),
    }
    if case.alpha is not None:
        sections["aggregation"] = {"weights": "paper", "alpha": case.alpha, "largest_share": 1.0}
    rates = [RATES_MBPS[number % len(RATES_MBPS)] for number in range(case.domains)]
    traces = [
        Trace(examples=data.examples, up_mbps=rate, down_mbps=rate, latency_s=0.02)
        for data, rate in zip(shards.values(), rates, strict=True)
    ]
    trainings = [_TimedTraining(bed.model, data, threads=cores()) for data in shards.values()]
    federation = SimulatedFederation(folder / "simulation", traces, plan=sections, trainings=trainings)
    for domain in federation.domains.values():  # extreme weights are what a sweep over alpha is about
        config = domain.work.context.config
        policy = config.policy.model_copy(update={"largest_share": 1.0})
        domain.work.context.config = config.model_copy(update={"policy": policy})
    with ProcessMeter() as meter:
        done = federation.run()
    finished, rounds = done.finished, done.of(RoundFinished)
    names = dict(zip(federation.domains, shards, strict=True))
    return Record(
        case=case,
        how="one process",
        parameters=rounds[-1].parameters,
        rounds=len(rounds),
        bytes_up=round(mean(event.bytes_up for event in rounds)),
        bytes_down=round(mean(event.bytes_down for event in rounds)),
        cost=_divided(meter.cost(parts_of(rounds)), sum(training.cpu_s for training in trainings)),
        quality=Quality(
            loss_before=finished.loss_before,
            loss=finished.loss_after,
            loss_by_domain={names[email]: loss for email, loss in finished.loss_after_by_domain.items()},
            tokens=round(sum(finished.heldout_tokens.values())),
        ),
        weights={names[email]: mean(event.weights[email] for event in rounds) for email in names},
        link_s=done.seconds,
    )


def _divided(cost: Cost, training_s: float) -> Cost:
    """Return the cost with training told apart, which ran in this very process."""
    training = min(cost.cpu_s, cost.training_cpu_s + training_s)
    return cost.model_copy(
        update={"training_cpu_s": round(training, 3), "other_cpu_s": round(cost.cpu_s - training, 3)}
    )
