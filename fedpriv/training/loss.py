"""The loss of next tokens, computed only where there is a label, and without a copy of the logits where that is right.

The logits of a large vocabulary are what a training step on a processor has most of. Where a model's output is nothing
but a frozen linear layer on its last hidden state, their gradient is found while they are in memory. Whether it is,
the model itself answers (:mod:`fedpriv.training.traits`): models that scale or cap their logits go through their own
forward.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from fedpriv.training.examples import IGNORED
from fedpriv.training.traits import computing, hidden_states, traits_of

ROWS_AT_ONCE = 512
"""Positions whose logits are in memory at a time: 512 x 49152 float32 are 96 MiB."""


def summed_loss(
    model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the summed cross-entropy of all labelled next tokens, in nats.

    Parameters
    ----------
    model : PreTrainedModel
        The base model, with its adapter in it.
    tokens, labels : Tensor of int64, (rows, length)
        As :func:`fedpriv.training.examples.collate` or :func:`fedpriv.training.packing.pack` gives them.
    positions : Tensor of int64, (rows, length), optional
        Of the tokens in their examples; by default every row is one example.

    Returns
    -------
    Tensor of float32, ()
        Differentiable with respect to the adapter.
    """
    wanted = labels != IGNORED
    if traits_of(model).plain_head:
        hidden = hidden_states(model, tokens, positions)[wanted]
        head = cast("torch.nn.Linear", model.get_output_embeddings())
        loss: Any = _FrozenHeadLoss.apply(hidden, head.weight, labels[wanted])
        return loss
    logits = wanted_logits(model, tokens, wanted, positions)
    return functional.cross_entropy(logits, labels[wanted], reduction="sum")


def wanted_logits(
    model: PreTrainedModel, tokens: torch.Tensor, wanted: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the logits where ``wanted`` (bool, (rows, length)) is true: float32, (wanted, vocabulary).

    They are the model's own, with whatever it does to them.
    """
    where: Any = {"position_ids": positions} if positions is not None else {}
    with computing(model):
        if len(tokens) == 1:  # one row: the model computes no others
            kept = wanted[0].nonzero()[:, 0]
            return model(input_ids=tokens, use_cache=False, logits_to_keep=kept, **where).logits[0].float()
        return model(input_ids=tokens, use_cache=False, **where).logits[wanted].float()


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy behind a frozen output layer, its gradient found in the forward pass.

    Since the layer's weight needs no gradient, ``(softmax - onehot) @ weight`` follows from the logits while they are
    in memory: a chunk of rows at a time, written over in place, never kept for the backward pass. Products are in the
    weight's type, all else in float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the losses; ``hidden`` (rows, width), ``weight`` (vocabulary, width), ``labels`` (rows)."""
        wants_gradient = ctx.needs_input_grad[0]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if wants_gradient else None
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            logits = (hidden[rows] @ weight.t()).float()
            normaliser = torch.logsumexp(logits, dim=1)
            target = labels[rows].unsqueeze(1)
            total += (normaliser - logits.gather(1, target).squeeze(1)).sum()
            if gradient is not None:
                logits.sub_(normaliser.unsqueeze(1)).exp_()
                logits.scatter_add_(1, target, torch.full(target.shape, -1.0, device=logits.device))
                gradient[rows] = logits.to(weight.dtype) @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Scale the gradient found in the forward pass."""
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None
