"""What differential privacy by patients costs in loss and in time, on the demo's study. Prints one JSON object.

    python benchmarks/private_training.py [--model tiny] [--epsilon 8] [--threads 1] [--only loss|seconds]

``loss``: the demo's three domains train in turn in this process, and their adapters are averaged as the sum would be,
once with epsilon and once without, each with the demo's settings. ``seconds``: one step of the private round against
the plain step and against a backward pass for each note, on as many notes of one patient each, best of several.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fedpriv.clinical import ClinicalTables, prepare, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.domain.privacy_budget import planned_epsilon, planned_mechanism, private_steps
from fedpriv.study.averaging import trained_tensors
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, Plan, TrainingChoice
from fedpriv.study.privacy import PRIVATE_BATCH, PRIVATE_RATE, PRIVATE_TARGETS, PrivacyChoice
from fedpriv.training import LocalContext, ensure_model, evaluate_local, starting_adapter, train_local
from fedpriv.training.examples import IGNORED, collate, encode_patients, read_patients
from fedpriv.training.model import adapter_parameters, load_model, next_token_loss, put_adapter
from fedpriv.training.private_round import clipped_sum, move, noisy_mean, per_note_gradients, train_private

MAX_TOKENS = 64
NOTES = 8
REPEATS = 5


def study(model, epsilon):
    """The demo's plan, with or without privacy."""
    member = [
        MemberChoice(email=f"{name}@demo.fedpriv", fingerprint=digit * 64)
        for name, digit in zip("abc", "123", strict=True)
    ]
    training = {"max_tokens": MAX_TOKENS}
    if epsilon is not None:
        training |= {"batch_size": PRIVATE_BATCH, "learning_rate": PRIVATE_RATE}
    return Plan(
        researcher=member[0],
        cohort=tuple(member[1:]),
        base_model=BaseModelChoice(name=model),
        lora=LoraChoice() if epsilon is None else LoraChoice(targets=PRIVATE_TARGETS),
        training=TrainingChoice.model_validate(training),
        privacy=None if epsilon is None else PrivacyChoice(epsilon=epsilon),
    )


def context_of(model, plan, shard, adapter, *, threads, number=1):
    return LocalContext(
        model_folder=model.folder,
        adapter=adapter,
        trained=trained_tensors(plan.averaging, adapter, number),
        train=shard.train,
        heldout=shard.heldout,
        lora=plan.lora,
        training=plan.training,
        round=number,
        seed=plan.training.seed,
        threads=threads,
    )


def heldout(model, plan, shards, adapter, threads):
    """Held-out loss over all domains' examples, in nats a token."""
    found = [evaluate_local(context_of(model, plan, shard, adapter, threads=threads)) for shard in shards]
    tokens = sum(metrics["heldout_tokens"] for metrics in found)
    return sum(metrics["heldout_loss"] * metrics["heldout_tokens"] for metrics in found) / tokens


def federated(model, plan, shards, threads):
    """Losses before and after each round."""
    adapter = starting_adapter(model.folder, plan.lora, plan.training.seed)
    losses = [heldout(model, plan, shards, adapter, threads)]
    weights = [shard.examples / sum(s.examples for s in shards) for shard in shards]
    for number in range(1, plan.training.rounds + 1):
        after = []
        for shard in shards:
            context = context_of(model, plan, shard, adapter, threads=threads, number=number)
            if plan.privacy is None:
                after.append(train_local(context).adapter_after)
            else:
                mechanism = planned_mechanism(plan, shard.patients)
                after.append(
                    train_private(context, private_steps(plan.privacy, mechanism, shard.patients)).adapter_after
                )
        adapter = {n: sum(w * a[n] for w, a in zip(weights, after, strict=True)).astype(np.float32) for n in adapter}
        losses.append(heldout(model, plan, shards, adapter, threads))
    return [round(loss, 4) for loss in losses]


def measure_loss(model, shards, epsilon, threads):
    plain, private = study(model.name, None), study(model.name, epsilon)
    return {
        "epsilon": epsilon,
        "domains": [
            {
                "patients": shard.patients,
                "noise_multiplier": planned_mechanism(private, shard.patients).noise_multiplier,
                "sampling": round(planned_mechanism(private, shard.patients).sampling, 4),
                "epsilon_planned": round(planned_epsilon(private, shard.patients), 4),
                "delta": f"1/{shard.patients}",
            }
            for shard in shards
        ],
        "heldout_loss": {
            "no_privacy": federated(model, plain, shards, threads),
            "private": federated(model, private, shards, threads),
        },
    }


def best_of_each(steps):
    """Take the steps in turn, several times, so that other work on the machine meets all of them; keep each best."""
    rounds = [{name: _timed(step) for name, step in steps.items()} for _ in range(REPEATS)]
    return {name: min(seconds[name] for seconds in rounds) for name in steps}


def _timed(what):
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def measure_seconds(model, shards, epsilon, threads):
    """Seconds of one step on NOTES patients with one note each."""
    torch.set_num_threads(threads)
    plan = study(model.name, epsilon)
    shard = max(shards, key=lambda s: s.patients)
    private = private_steps(plan.privacy, planned_mechanism(plan, shard.patients), shard.patients)
    notes = [p[:1] for p in encode_patients(model.folder, read_patients(shard.train), max_tokens=MAX_TOKENS) if p][
        :NOTES
    ]
    loaded = load_model(model.folder, plan.lora)
    put_adapter(loaded, starting_adapter(model.folder, plan.lora, 0))
    trained = {name: p for name, p in adapter_parameters(loaded).items() if name.endswith("lora_B.weight")}
    optimizer = torch.optim.AdamW(list(adapter_parameters(loaded).values()), lr=1e-3)

    def plain():
        inputs, labels = collate([patient[0] for patient in notes])
        optimizer.zero_grad(set_to_none=True)
        (next_token_loss(loaded, inputs, labels) / int((labels != IGNORED).sum())).backward()
        optimizer.step()

    def one_by_one():
        for patient in notes:
            inputs, labels = collate(patient)
            optimizer.zero_grad(set_to_none=True)
            next_token_loss(loaded, inputs, labels).backward()

    def by_patient():
        with per_note_gradients(loaded, trained):
            total = clipped_sum(loaded, trained, notes, clip=private.clip, most=1)
        move(trained, noisy_mean(total, private), 1e-3)

    found = best_of_each({"plain": plain, "one_backward_pass_a_patient": one_by_one, "private": by_patient})
    return {
        "notes": len(notes),
        "threads": threads,
        "seconds_a_step": {name: round(value, 3) for name, value in found.items()},
        "ratio_to_plain": {name: round(value / found["plain"], 3) for name, value in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["loss", "seconds"])
    options = parser.parse_args()
    model = ensure_model(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_synthetic(folder / "tables", seed=0)
        shards = []
        with contextlib.closing(ClinicalTables.open(folder / "tables")) as tables:
            for shard in shard_by_care_unit(tables, 3):
                write_shard(tables, shard, folder / shard.name)
                shards.append(prepare(folder / shard.name, folder / f"{shard.name}-prepared"))
        result = {"model": options.model}
        if options.only != "loss":
            result["step"] = measure_seconds(model, shards, options.epsilon, options.threads)
        if options.only != "seconds":
            result["loss"] = measure_loss(model, shards, options.epsilon, options.threads)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
