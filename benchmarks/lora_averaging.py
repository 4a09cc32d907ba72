"""Which averaging of LoRA's factors, and which server optimiser, helps on unequal shards?

    python benchmarks/lora_averaging.py [--model tiny] [--rounds 8] [--steps 4] [--seeds 0 1 2] > lora_averaging.json

Every run of a seed starts from the same synthetic tables, the same adapter and the same order of examples. Each domain
has the patients of one care unit, whose notes are about other things, and unequal numbers of them: the second keeps a
third of its training examples, the next ones a ninth. The rounds are those of a study (stock training, weights by
number of examples, the server optimiser of `fedpriv.training.server`) in one process and without quantisation; bytes
are those of level sealed at 10 bits, by domain and over all rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

from fedpriv.clinical import ClinicalTables, Telling, prepare, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.protection.sizes import update_bytes
from fedpriv.study.averaging import ServerChoice, trained_tensors, turns_of
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training import LocalContext, ensure_model, evaluate_local, starting_adapter, train_local
from fedpriv.training.server import ServerState, server_step

AVERAGINGS = ("both", "b_only", "alternate")
SHARES = (1.0, 1 / 3, 1 / 9)
MAX_TOKENS = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to run the rounds."""

    averaging: str
    optimizer: str = "none"
    learning_rate: float | None = None
    tau: float = 1e-4
    proximal: float = 0.0

    @property
    def server(self):
        values = {"learning_rate": self.learning_rate} if self.learning_rate else {}
        values |= {"tau": self.tau} if self.optimizer == "adam" else {}
        return ServerChoice(optimizer=self.optimizer, **values)


def cases_of(options):
    ways = {
        "none": {},
        "momentum": {"optimizer": "momentum", "learning_rate": options.momentum_rate},
        "adam": {"optimizer": "adam", "learning_rate": options.adam_rate, "tau": options.tau},
        "proximal": {"proximal": options.proximal},
    }
    pairs = [(averaging, way) for way in ways for averaging in AVERAGINGS]
    return [Case(a, **ways[way]) for a, way in pairs if options.cases is None or f"{a}:{way}" in options.cases]


def unequal_shards(folder, domains, seed):
    """Prepared examples of each care unit, of which all, a third, and a ninth are left for training."""
    write_synthetic(folder / "tables", seed=seed)
    tables, shards = ClinicalTables.open(folder / "tables"), []
    for number, shard in enumerate(shard_by_care_unit(tables, domains)):
        write_shard(tables, shard, folder / shard.name)
        telling = Telling(seed=seed, split="patient")
        data = prepare(folder / shard.name, folder / f"{shard.name}-prepared", telling=telling)
        lines = data.train.read_bytes().splitlines(keepends=True)
        kept = max(4, round(len(lines) * SHARES[min(number, len(SHARES) - 1)]))
        train = folder / f"{shard.name}.jsonl"
        train.write_bytes(b"".join(lines[:kept]))
        shards.append(dataclasses.replace(data, train=train, examples=min(kept, len(lines))))
    return shards


@dataclasses.dataclass(frozen=True)
class Rounds:
    """A federated study in one process."""

    model: object
    shards: list
    training: TrainingChoice
    threads: int
    every: int

    def _context(self, shard, adapter, number, trained, proximal=0.0):
        return LocalContext(
            model_folder=self.model.folder,
            adapter=adapter,
            trained=trained,
            train=shard.train,
            heldout=shard.heldout,
            lora=LoraChoice(),
            training=self.training.model_copy(update={"proximal": proximal}),
            round=number,
            seed=self.training.seed,
            threads=self.threads,
        )

    def heldout(self, adapter):
        """Mean held-out loss of a token over all domains, and the worst domain's (nats)."""
        found = [evaluate_local(self._context(shard, adapter, 1, tuple(adapter))) for shard in self.shards]
        tokens = sum(metrics["heldout_tokens"] for metrics in found)
        mean = sum(metrics["heldout_loss"] * metrics["heldout_tokens"] for metrics in found) / tokens
        return round(mean, 4), round(max(metrics["heldout_loss"] for metrics in found), 4)

    def run(self, case):
        adapter, state = starting_adapter(self.model.folder, LoraChoice(), self.training.seed), ServerState()
        rate = case.learning_rate or (
            self.training.learning_rate * self.training.steps if case.optimizer == "adam" else 1.0
        )
        weights = [shard.examples / sum(s.examples for s in self.shards) for shard in self.shards]
        losses = {}
        for number in range(1, self.training.rounds + 1):
            trained = trained_tensors(case.averaging, adapter, number)
            after = [
                train_local(self._context(shard, adapter, number, trained, case.proximal)).adapter_after
                for shard in self.shards
            ]
            mean = {
                name: sum(w * (a[name].astype(float) - adapter[name]) for w, a in zip(weights, after, strict=True))
                for name in trained
            }
            adapter, state = server_step(case.server, rate, adapter, mean, state)
            if number % self.every == 0 or number == self.training.rounds:
                losses[number] = self.heldout(adapter)
        sizes = {name: tensor.size for name, tensor in adapter.items()}
        turns = turns_of(case.averaging, sizes)
        return {
            **dataclasses.asdict(case),
            "loss_by_round": {number: mean for number, (mean, _) in losses.items()},
            "loss": losses[self.training.rounds][0],
            "worst_domain": losses[self.training.rounds][1],
            "bytes_up": sum(
                update_bytes(
                    ProtectionChoice(),
                    tensors={name: sizes[name] for name in turns},
                    turns=turns,
                    clients=len(self.shards),
                    round_number=number,
                )
                for number in range(1, self.training.rounds + 1)
            ),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="or tiny")
    parser.add_argument("--domains", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps a round and domain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=2, help="measure the held-out loss after so many rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--momentum-rate", type=float, default=None)
    parser.add_argument("--adam-rate", type=float, default=None)
    parser.add_argument("--tau", type=float, default=1e-4)
    parser.add_argument("--proximal", type=float, default=0.1)
    parser.add_argument("--cases", nargs="+", help="such as both:none alternate:adam b_only:proximal; by default all")
    options = parser.parse_args()
    model, runs, cohorts = ensure_model(options.model), [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="fedpriv-averaging-") as name:
            shards = unequal_shards(Path(name), options.domains, seed)
            training = TrainingChoice(rounds=options.rounds, steps=options.steps, max_tokens=MAX_TOKENS, seed=seed)
            rounds = Rounds(model, shards, training, options.threads, options.every)
            start = rounds.heldout(starting_adapter(model.folder, LoraChoice(), seed))
            cohorts.append({"seed": seed, "examples": [s.examples for s in shards], "loss_before": start[0]})
            for case in cases_of(options):
                runs.append({"seed": seed, **rounds.run(case)})
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    summary = [
        {
            **dataclasses.asdict(case),
            "loss": round(statistics.mean(found["loss"] for found in mine), 4),
            "worst_domain": round(statistics.mean(found["worst_domain"] for found in mine), 4),
            "bytes_up": mine[0]["bytes_up"],
        }
        for case in cases_of(options)
        for mine in [[f for f in runs if all(f[k] == v for k, v in dataclasses.asdict(case).items())]]
    ]
    print(json.dumps({"options": vars(options), "cohorts": cohorts, "summary": summary, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
