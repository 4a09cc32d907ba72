"""What does a local round of SmolLM2 cost on this machine?

    python benchmarks/training_step.py [--model smollm2-135m-instruct] > training_step.json

Seconds a LoRA step of 4 x 96 tokens takes in float32, under bfloat16 autocast and with bfloat16 weights, with 1 and 2
threads; seconds to load the model; peak memory; seconds until the worker is ready; milliseconds until a child has
started. Every figure is the best of several, because other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, TOKENS, STEPS = 4, 96, 5


def measure_steps(folder: Path, precision: str, threads: int) -> dict:
    import torch

    from fedpriv.study.plan import LoraChoice
    from fedpriv.training import initial_adapter, lora_layout
    from fedpriv.training.model import _FrozenHeadLoss, load_model, put_adapter

    torch.set_num_threads(threads)
    started = time.perf_counter()
    model = load_model(folder, LoraChoice())
    put_adapter(model, initial_adapter(lora_layout(folder, LoraChoice()), 0))
    load_s = time.perf_counter() - started
    if precision == "bfloat16_weights":
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    causal = model.get_base_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.0)
    vocabulary = causal.config.vocab_size
    tokens = (torch.arange(BATCH * TOKENS) * 37 % min(2000, vocabulary)).view(BATCH, TOKENS)
    labels = tokens[:, 1:].reshape(-1)
    seconds, losses = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16_autocast"):
            hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
        rows = hidden[:, :-1].reshape(-1, hidden.shape[-1]).float()
        loss = _FrozenHeadLoss.apply(rows, causal.lm_head.weight.float(), labels) / len(labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        losses.append(round(float(loss), 4))
    return {
        "precision": precision,
        "threads": threads,
        "load_s": round(load_s, 3),
        "step_s": round(min(seconds), 3),
        "loss": losses,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure_worker(folder: Path) -> dict:
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as out,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "fedpriv.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as worker,
    ):
        worker.stdout.readline()
        ready_s = time.perf_counter() - started
        job = {"id": "x", "job": "initial", "model_folder": str(folder), "out": out, "lora": {}, "training": {}}
        took = []
        for _ in range(5):
            started = time.perf_counter()
            worker.stdin.write(json.dumps(job) + "\n")
            worker.stdin.flush()
            worker.stdout.readline()
            took.append(time.perf_counter() - started)
        worker.stdin.close()
    return {"ready_s": round(ready_s, 2), "initial_job_ms": round(min(took) * 1000, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "PRECISION", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, precision, threads = options.one
        print(json.dumps(measure_steps(Path(folder), precision, int(threads))))
        return

    from fedpriv.training import ensure_model

    model = ensure_model(options.model)
    rows = []
    for precision in ("float32", "bfloat16_autocast", "bfloat16_weights"):
        for threads in (1, 2):
            command = [sys.executable, __file__, "--one", str(model.folder), precision, str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(
        json.dumps(
            {"model": model.name, "source": model.source, "steps": rows, **measure_worker(model.folder)}, indent=1
        )
    )


if __name__ == "__main__":
    main()
