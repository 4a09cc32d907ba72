"""One domain's part of one round: some AdamW steps on the LoRA parameters over the domain's own examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedpriv.errors import TrainingError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import IGNORED, Example, example_order, labels_of
from fedpriv.training.ranks import ALONE, Ranks, ranks_now
from fedpriv.training.shard import training_shard

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

MAX_GRADIENT_NORM = 1.0
_NEXT_STREAM = 0x9E3779B1
"""Between the seeds of two ranks, whose dropout must differ: torch's generator takes the lowest 32 bits of a seed."""


def _silent(_step: int, _steps: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class LocalContext:
    """All that a recipe gets.

    Attributes
    ----------
    model_folder : Path
        The base model: ``config.json``, ``model.safetensors``, ``tokenizer.json``.
    adapter : dict[str, ndarray of float32]
        The LoRA parameters at the start of the round.
    trained : tuple of str
        Names of those that this round trains; the others must come back as they are, to the bit.
    train, heldout : Path
        JSON lines, see :mod:`fedpriv.training.lines`; the second is never trained on.
    lora, training
        The plan's sections.
    round : int
        From 1 on; decides where in the shard's order this round starts.
    seed : int
        The study's seed at this domain.
    threads : int
        Processor threads to use.
    tokens : Path or None
        The tokens of both files, encoded before (:mod:`fedpriv.training.token_store`); None where they are not kept.
    report : Callable[[int, int], None]
        Call with (step, steps) after each step. Only rising steps up to ``training.steps`` are shown.
    """

    model_folder: Path
    adapter: AdapterState
    trained: tuple[str, ...]
    train: Path
    heldout: Path
    lora: LoraChoice
    training: TrainingChoice
    round: int
    seed: int
    threads: int
    tokens: Path | None = None
    report: Callable[[int, int], None] = _silent


@dataclass(frozen=True, kw_only=True)
class LocalOutcome:
    """What a recipe returns.

    Attributes
    ----------
    adapter_after : dict[str, ndarray of float32]
        The LoRA parameters after training: names and shapes of ``context.adapter``.
    metrics : Mapping[str, float]
        ``train_loss`` (mean over the predicted tokens of the round, nats), ``train_tokens`` (how many those were) and
        ``examples`` (how many usable examples the shard has: FedAvg's weight).
    """

    adapter_after: AdapterState
    metrics: Mapping[str, float]


def train_local(context: LocalContext) -> LocalOutcome:
    """Train ``context.trained`` for ``training.steps`` steps and return the adapter.

    AdamW without weight decay at the plan's constant learning rate, mean loss over all next tokens of a batch, or over
    the answers where the shard asks questions, pulled back to the start by ``training.proximal`` (:func:`pull_back`),
    gradient norm clipped to 1. The result depends on the context alone: the same seed, round, threads and machine give
    the same bits. After ``training.max_seconds`` it stops with the work so far, after one step at the earliest.

    Where this process is one of several (:mod:`fedpriv.training.ranks`), each computes its share of every batch, and
    all return what one alone would, up to rounding and dropout. They stop together, at the first one's limit.

    Raises
    ------
    TrainingError
        If the shard has no usable example or the loss is no longer finite.
    ModelError
        If the base model cannot be loaded.
    """
    import torch

    from fedpriv.training.model import load_model, put_adapter, take_adapter, train_only, training_mode

    started = time.monotonic()
    torch.set_num_threads(context.threads)
    ranks = ranks_now()
    torch.manual_seed(context.seed * 1_000_003 + context.round + ranks.rank * _NEXT_STREAM)
    choice = context.training
    shard = training_shard(context)
    if not len(shard):
        raise TrainingError("The shard has no example of two tokens or more", todo="prepare the shard again")
    model = load_model(context.model_folder, context.lora, choice.precision)
    put_adapter(model, context.adapter)
    with training_mode(model, checkpointing=choice.checkpointing):
        trained = list(train_only(model, context.trained).values())
        optimizer = torch.optim.AdamW(trained, lr=choice.learning_rate, weight_decay=0.0, fused=True)
        start = [parameter.detach().clone() for parameter in trained] if choice.proximal else []
        order = example_order(len(shard), context.seed, (context.round - 1) * choice.steps * choice.batch_size)
        loss_sum, tokens = 0.0, 0
        for step in range(1, choice.steps + 1):
            optimizer.zero_grad(set_to_none=True)
            batch = shard.draw(order, choice.batch_size)
            step_loss, step_tokens = backward(model, batch, choice.accumulation, ranks)
            ranks.add_gradients(trained)
            pull_back(trained, start, choice.proximal)
            torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
            optimizer.step()
            late = ranks.first and time.monotonic() - started >= choice.max_seconds
            step_loss, stop = ranks.total(step_loss, float(late))
            loss_sum, tokens = loss_sum + step_loss, tokens + step_tokens
            context.report(step, choice.steps)
            if stop:
                break
    metrics = {"train_loss": loss_sum / tokens, "train_tokens": float(tokens), "examples": float(len(shard))}
    return LocalOutcome(adapter_after=take_adapter(model), metrics=metrics)


def pull_back(trained: Sequence[torch.nn.Parameter], start: Sequence[torch.Tensor], proximal: float) -> None:
    """Add the gradient of ``proximal / 2 ||w - w_0||^2`` to the parameters' gradients; with 0, nothing.

    FedProx (Li et al. 2020, *Federated Optimization in Heterogeneous Networks*, arXiv 1812.06127, equation 2): a domain
    whose notes are unlike the others' moves less far away in one round.

    Parameters
    ----------
    trained : sequence of Parameter
        The parameters ``w``, with their gradients.
    start : sequence of Tensor
        What they were at the start of the round, ``w_0``.
    proximal : float
        mu.
    """
    if not proximal:
        return
    for parameter, origin in zip(trained, start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=proximal)


def backward(model: PeftModel, batch: Sequence[Example], parts: int = 1, ranks: Ranks = ALONE) -> tuple[float, int]:
    """Add the gradient of a batch's mean loss, or of this rank's share in it, to the parameters' gradients.

    Parameters
    ----------
    model : PeftModel
        In training mode, its gradients at zero.
    batch : sequence of Example
        Each with at least one token to learn.
    parts : int, default 1
        Into so many parts the batch is divided, one after the other in memory. The mean is over the tokens of the whole
        batch, so the gradient is the same up to rounding. A rank, which has fewer examples, divides them into fewer.
    ranks : Ranks
        This process among those that share the batch, by default alone.

    Returns
    -------
    tuple of float and int
        The summed loss of the rank's share in nats, and the number of predicted tokens of the whole batch.

    Raises
    ------
    TrainingError
        If the loss is no longer finite.
    """
    from fedpriv.training.model import batch_loss

    count = sum(label != IGNORED for example in batch for label in labels_of(example))
    share = ranks.share(batch)
    if not share:
        return 0.0, count
    total = 0.0
    for part in np.array_split(np.arange(len(share)), min(math.ceil(parts / ranks.size), len(share))):
        with batch_loss(model, [share[index] for index in part]) as loss:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    "The training loss is no longer finite", todo="lower training > learning_rate in the plan"
                )
            (loss / count).backward()
        total += value
    return total, count
