"""Which weights help on unequal shards behind unequal links? Prints JSON.

    python benchmarks/weights.py                          the tiny model, three seeds: two minutes
    python benchmarks/weights.py --model smollm2-135m-instruct --seeds 0 --rounds 3

Whole studies in virtual time: the real orchestrator, domains and training, with links of 100, 20 and 2 Mbit/s that the
domains measure. The shards hold different kinds of notes, and all, a third and a ninth of the examples; which shard
is behind which link changes with the seed. Every rule has the same data, seeds and steps; what differs is the weights.
Reported for each rule: the held-out loss over all domains (each token counts alike), of the worst domain, and the mean
share of the largest shard and of the slowest link.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpriv.clinical import ClinicalTables, PreparedData, prepare, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.experiments.simulation import ModelTraining, SimulatedFederation, Trace
from fedpriv.researcher.events import Weighed
from fedpriv.training.base_model import LocalModel, ensure_model

RULES: dict[str, dict[str, Any]] = {
    "fedavg": {"weights": "fedavg"},
    "uniform": {"weights": "uniform"},
    "inverse-loss": {"weights": "inverse-loss"},
    "paper, alpha 0": {"weights": "paper", "alpha": 0.0},
    "paper, alpha 0.5": {"weights": "paper", "alpha": 0.5},
    "paper, alpha 1": {"weights": "paper", "alpha": 1.0},
    "paper-reciprocal, alpha 0.5": {"weights": "paper-reciprocal", "alpha": 0.5},
}
PARTS, RATES = (1.0, 1 / 3, 1 / 9), (100.0, 20.0, 2.0)


def unequal_shards(folder: Path) -> list[PreparedData]:
    """Return prepared shards by care unit, the second and third with a part of their examples only."""
    write_synthetic(folder / "tables", patients=240)
    tables = ClinicalTables.open(folder / "tables")
    shards = []
    for number, (shard, part) in enumerate(zip(shard_by_care_unit(tables, len(PARTS)), PARTS, strict=True)):
        write_shard(tables, shard, folder / f"shard-{number}")
        whole = prepare(folder / f"shard-{number}", folder / f"store-{number}")
        lines = whole.train.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = max(2, round(len(lines) * part))
        fewer = folder / f"train-{number}.jsonl"
        fewer.write_text("".join(lines[:kept]), encoding="utf-8")
        shards.append(dataclasses.replace(whole, train=fewer, examples=kept))
    return shards


def run(
    rule: str, seed: int, shards: Sequence[PreparedData], *, model: LocalModel, folder: Path, rounds: int, steps: int
) -> dict[str, float]:
    """Run one study and return what came of it."""
    rates = RATES[seed % 3 :] + RATES[: seed % 3]
    traces = [
        Trace(examples=shard.examples, up_mbps=rate, down_mbps=rate, latency_s=0.001)
        for shard, rate in zip(shards, rates, strict=True)
    ]
    training = {"rounds": rounds, "steps": steps, "seed": seed, "max_tokens": 96}
    federation = SimulatedFederation(
        folder,
        traces,
        plan={
            "base_model": {"name": model.name},
            "training": training,
            "aggregation": RULES[rule] | {"largest_share": 1.0},
        },
        trainings=[ModelTraining(model, shard) for shard in shards],
    )
    for domain in federation.domains.values():  # extreme weights are what is compared
        policy = domain.work.context.config.policy.model_copy(update={"largest_share": 1.0})
        domain.work.context.config = domain.work.context.config.model_copy(update={"policy": policy})
    done = federation.run()
    shares = [list(event.shares.values()) for event in done.of(Weighed)]
    return {
        "loss": done.finished.loss_after,
        "worst": max(done.finished.loss_after_by_domain.values()),
        "before": done.finished.loss_before,
        "share_of_largest_shard": statistics.mean(row[0] for row in shares),
        "share_of_slowest_link": statistics.mean(row[rates.index(min(rates))] for row in shares),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = unequal_shards(folder)
        given = {"model": ensure_model(args.model), "rounds": args.rounds, "steps": args.steps}
        for rule in args.rules:
            runs = []
            for seed in args.seeds:
                runs.append(run(rule, seed, shards, folder=folder / f"{rule}-{seed}", **given))
                print(f"{rule}, seed {seed}: loss {runs[-1]['loss']:.4f}", file=sys.stderr, flush=True)
            results[rule] = {key: round(statistics.mean(r[key] for r in runs), 4) for key in runs[0]} | {
                "losses": [round(r["loss"], 4) for r in runs]
            }
        sizes = [shard.examples for shard in shards]
    json.dump({"model": args.model, "rounds": args.rounds, "examples": sizes, "rules": results}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
