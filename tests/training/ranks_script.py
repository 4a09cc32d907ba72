"""What `accelerate launch` starts in test_ranks.py: the local round in each of two processes, in several ways."""

import dataclasses
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import LocalContext, adapter_digest, load_state, save_state, train_local
from fedpriv.training.ranks import PeerLostError, Ranks, ranks_now

job = json.loads(sys.argv[1])
out = Path(job["out"])
dist.init_process_group("gloo")
ranks = ranks_now()
assert ranks == Ranks(int(os.environ["RANK"]), 2)
told = {}


def run(name, training, lora, **change):
    steps = []
    context = LocalContext(
        model_folder=Path(job["model_folder"]),
        adapter=load_state(Path(job["adapter"])),
        trained=tuple(job["trained"]),
        train=Path(job["train"]),
        heldout=Path(job["train"]),
        lora=LoraChoice(**lora),
        training=TrainingChoice(**training),
        round=1,
        seed=7,
        threads=1,
        report=lambda step, _: steps.append(step),
    )
    outcome = train_local(dataclasses.replace(context, **change))
    told[name] = {"digest": adapter_digest(outcome.adapter_after), "metrics": dict(outcome.metrics), "steps": steps}
    told[name]["stream"] = float(torch.rand(()))
    if ranks.first:
        save_state(outcome.adapter_after, out / f"{name}.safetensors")


for name, (training, lora) in job["ways"].items():
    run(name, training, lora)

clock = itertools.count(step=10 if ranks.first else 0)
sys.modules["fedpriv.training.local_round"].time.monotonic = lambda: next(clock)
run("late", {"steps": 50, "max_seconds": 25}, {})

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which the launcher ends the others, now or a moment later
dist.barrier()
(out / f"rank-{ranks.rank}.json").write_text(json.dumps(told))
if not ranks.first:
    os._exit(3)
try:
    ranks.total(1.0)
except PeerLostError:
    (out / "lost").touch()
