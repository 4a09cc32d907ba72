"""Sensitivity: which tensors of the adapter tell single notes apart, measured on made-up notes.

A tensor whose gradient is much the same for every note says little about one of them; one whose gradient differs from
note to note is what an attack on a single update reads. That is the idea of selective encryption (FedML-HE, Jin et al.
2023), taken by tensor, because an index of single parameters would cost traffic and itself tell something.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.errors import TrainingError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training.adapter import AdapterState, starting_adapter
from fedpriv.training.examples import IGNORED, Example, collate, encode, example_order, read_lines
from fedpriv.training.local_round import LocalContext, train_local

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

Report = Callable[[str, int, int], None]
_ORDER_SEED = 1
"""Added to the plan's seed, so that the notes measured are not simply the first ones trained on."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What was measured.

    Attributes
    ----------
    spread : dict of float
        For each tensor, in sorted-name order, the mean over the notes of the squared distance of its gradient from the
        mean gradient: ``mean_i || g_i - mean_j g_j ||^2``. Gradients are of the mean loss of a token, in nats.
    notes : int
        How many single notes were measured.
    steps : int
        Optimiser steps that were taken first.
    """

    spread: dict[str, float]
    notes: int
    steps: int


def measure_sensitivity(
    model_folder: Path,
    examples: Path,
    *,
    lora: LoraChoice,
    training: TrainingChoice,
    notes: int = 16,
    threads: int = 1,
    report: Report = lambda stage, done, total: None,
) -> Sensitivity:
    """Take the plan's steps of one round on made-up notes, then measure the gradients of single notes.

    The steps come first because ``lora_B`` starts at zero, where every gradient of ``lora_A`` is zero: measured there,
    half of the tensors would look harmless. Memory stays at three adapters beside training's own, whatever ``notes``.

    *Assumption*: gradients stand for what leaves. Adam makes a tensor's change as large as any other's, however small
    its gradients are; so a small spread means less to learn from gradients, not a tensor that tells nothing.

    Parameters
    ----------
    model_folder, lora, training
        The base model and the plan's sections.
    examples : Path
        JSON lines of ``{"text": ...}``. Only ever mock or public notes: the result is not protected.
    notes : int, default 16
        How many single notes to measure; all of them if there are fewer.
    threads : int
        Processor threads to use.
    report : Callable[[str, int, int], None]
        Called with the stage (``training``, ``measuring``), what of it is done, and its total.

    Raises
    ------
    TrainingError
        If there are fewer than two usable notes, the loss is not finite, or no gradient differs between notes.
    ModelError
        If the model cannot be loaded or has none of the targeted layers.
    """
    tokens = encode(model_folder, read_lines(examples), max_tokens=training.max_tokens)
    if len(tokens) < 2 or notes < 2:
        raise TrainingError("Sensitivity needs at least two notes of two tokens or more", todo="give more notes")
    adapter = adapter_after_a_round(
        model_folder, examples, lora=lora, training=training, threads=threads, report=report
    )
    chosen = itertools.islice(example_order(len(tokens), training.seed + _ORDER_SEED, 0), min(notes, len(tokens)))
    count = min(notes, len(tokens))
    spread = _spread(model_folder, lora, adapter, (tokens[n] for n in chosen), lambda n: report("measuring", n, count))
    if not sum(spread.values()) > 0:
        raise TrainingError("No gradient differs between the notes", todo="give notes that are not all the same")
    return Sensitivity(spread=spread, notes=count, steps=training.steps)


def adapter_after_a_round(
    model_folder: Path,
    examples: Path,
    *,
    lora: LoraChoice,
    training: TrainingChoice,
    threads: int = 1,
    report: Report = lambda stage, done, total: None,
) -> AdapterState:
    """Return the adapter after the plan's steps of one round on some examples: the one whose gradients are looked at.

    Raises
    ------
    TrainingError
        If no example is usable, or the loss is not finite.
    ModelError
        If the model cannot be loaded or has none of the targeted layers.
    """
    adapter = starting_adapter(model_folder, lora, training.seed)
    context = LocalContext(
        model_folder=model_folder,
        adapter=adapter,
        trained=tuple(adapter),
        train=examples,
        heldout=examples,
        lora=lora,
        training=training,
        round=1,
        seed=training.seed,
        threads=threads,
        report=lambda done, total: report("training", done, total),
    )
    return train_local(context).adapter_after


def _spread(
    model_folder: Path, lora: LoraChoice, adapter: AdapterState, notes: Iterable[Example], done: Callable[[int], None]
) -> dict[str, float]:
    """Return each tensor's mean squared distance from the mean gradient, with Welford's running sums in float64."""
    import torch

    from fedpriv.training.model import adapter_parameters, load_model, put_adapter

    model = load_model(model_folder, lora)
    put_adapter(model, adapter)
    model.eval()  # dropout would look like a difference between notes
    parameters = adapter_parameters(model)
    mean = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    squares = dict.fromkeys(parameters, 0.0)
    count = 0
    for count, note in enumerate(notes, 1):
        _backward(model, note)
        for name, parameter in parameters.items():
            if parameter.grad is None:
                continue
            change = parameter.grad.double() - mean[name]
            mean[name] += change / count
            squares[name] += float((change * (parameter.grad.double() - mean[name])).sum())
        model.zero_grad(set_to_none=True)
        done(count)
    return {name: value / max(1, count) for name, value in squares.items()}


def _backward(model: PeftModel, note: Example) -> torch.Tensor:
    """Put the gradient of one note's mean loss of a token into the parameters; return that loss (nats)."""
    import torch

    from fedpriv.training.model import next_token_loss

    inputs, labels = collate([note])
    loss = next_token_loss(model, inputs, labels) / int((labels != IGNORED).sum())
    if not torch.isfinite(loss):
        raise TrainingError("The loss of a note is not finite", todo="lower training > learning_rate in the plan")
    model.zero_grad(set_to_none=True)
    loss.backward()
    return loss.detach()
