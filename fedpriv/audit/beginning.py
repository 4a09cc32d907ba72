"""What an audit begins with: notes that anybody could make up, and an adapter that was trained on them."""

from __future__ import annotations

from pathlib import Path

from fedpriv.audit.scenes import Report
from fedpriv.clinical import write_mock
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.training.adapter import AdapterState, lora_layout, starting_adapter
from fedpriv.training.examples import Example, encode, read_lines
from fedpriv.training.local_round import LocalContext, train_local

EXAMPLES = "examples.jsonl"
"""The file of the notes, in the folder that they are written to."""

_WARM_STEPS = (8, 32)
"""Fewest and most steps on made-up notes that a study's first adapter is warmed by."""

_PUBLIC_SEED = 0


def public_notes(request: CodeRequest, model: Path, folder: Path) -> list[Example]:
    """Make notes up that anybody could: what an attacker knows of the kind of text."""
    write_mock(folder, seed=_PUBLIC_SEED, task=request.plan.task, files=request.files)
    lines = read_lines(folder / EXAMPLES)
    return encode(model, lines, max_tokens=max(512, request.plan.training.max_tokens))


def warmed(plan: Plan, model: Path, public: Path, *, threads: int, report: Report) -> AdapterState:
    """Return a study's first adapter after some steps on made-up notes: at its very start much is hidden."""
    layout = lora_layout(model, plan.lora)
    training = plan.training
    least, most = _WARM_STEPS
    steps = max(least, min(training.steps, most))
    adapter = starting_adapter(model, plan.lora, training.seed)
    context = LocalContext(
        model_folder=model,
        adapter=adapter,
        trained=tuple(name for number in (1, 2) for name in trained_tensors(plan.averaging, layout, number)),
        train=public,
        heldout=public,
        lora=plan.lora,
        training=training.model_copy(update={"steps": steps, "proximal": 0.0}),
        round=1,
        seed=training.seed,
        threads=threads,
        report=lambda done, total: report("warming the adapter on made-up notes", done, total),
    )
    return train_local(context).adapter_after
