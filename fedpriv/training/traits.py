"""What a base model can do, asked of the model itself with a few tokens, so that no list of names has to be right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from fedpriv.errors import ModelError
from fedpriv.training.packing import ATTENTION, pack, segments

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Of the largest value: rounding differs with the length of a row; looking at another example shows far more."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Traits of a loaded model.

    Attributes
    ----------
    plain_head : bool
        Its logits are its output layer's weight times its last hidden state, to the bit: nothing scales or caps them.
    packable : bool
        An example in a row of several comes out as it does alone (:mod:`fedpriv.training.packing`). Not so where state
        runs along the row, as in recurrent layers.
    """

    plain_head: bool
    packable: bool


def traits_of(model: PreTrainedModel) -> Traits:
    """Return a model's traits; asked once of a model, in some milliseconds.

    Raises
    ------
    ModelError
        If it is not causal: it could look up what it is asked to predict, and its loss would mean nothing.
    """
    known = model.__dict__.get("_fedpriv_traits")
    if not isinstance(known, Traits):
        known = _ask(model)
        model.__dict__["_fedpriv_traits"] = known
    return known


@torch.no_grad()
def _ask(model: PreTrainedModel) -> Traits:
    was_training = model.training
    model.eval()
    try:
        vocabulary = int(cast("Any", model.get_input_embeddings()).weight.shape[0])
        first, second = ([(37 * n + shift) % vocabulary for n in range(1, 6)] for shift in (3, 11))
        tokens = torch.tensor([second], device=model.device)
        alone = hidden_states(model, tokens, None)
        _require_causal(model, tokens, alone)
        return Traits(plain_head=_plain(model, tokens, alone), packable=_packable(model, [first, second], alone))
    finally:
        model.train(was_training)


def _require_causal(model: PreTrainedModel, tokens: torch.Tensor, hidden: torch.Tensor) -> None:
    """Refuse a model in which another last token changes what stands before it."""
    other = tokens.clone()
    other[0, -1] = tokens[0, 0]
    before = slice(0, tokens.shape[1] - 1)
    if _difference(hidden_states(model, other, None)[:, before], hidden[:, before]) > _tolerance(hidden):
        raise ModelError(
            "The base model sees tokens that come later, so it could copy what it has to predict",
            todo="choose a causal language model",
        )


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) / float(other.abs().max())


def _tolerance(hidden: torch.Tensor) -> float:
    return _TOLERANCE.get(hidden.dtype, 1e-3)


def _plain(model: PreTrainedModel, tokens: torch.Tensor, hidden: torch.Tensor) -> bool:
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.bias is not None or head.weight.requires_grad:
        return False
    if head.weight.dtype != hidden.dtype or head.weight.dim() != 2:
        return False
    with computing(model):
        logits = model(input_ids=tokens, use_cache=False).logits
    return torch.equal(logits, functional.linear(hidden, head.weight))


def _packable(model: PreTrainedModel, examples: list[list[int]], alone: torch.Tensor) -> bool:
    if model.config._attn_implementation != ATTENTION:
        return False
    packed = pack(examples).to(model.device)
    with segments(packed.lengths):
        together = hidden_states(model, packed.tokens, packed.positions)[:, len(examples[0]) :]
    return _difference(together, alone) <= _tolerance(alone)


def hidden_states(model: PreTrainedModel, tokens: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Return the last hidden states (rows, length, width), before the output layer."""
    where: Any = {} if positions is None else {"position_ids": positions}
    with computing(model):
        return backbone_of(model)(input_ids=tokens, use_cache=False, **where).last_hidden_state


def backbone_of(model: PreTrainedModel) -> Any:
    """Return the model without its output layer."""
    found: Any = model
    parts = (found.base_model, found.get_decoder(), getattr(found, "model", found))
    return next(part for part in parts if part is not found)  # not every architecture goes by its own name for it


@contextlib.contextmanager
def computing(model: PreTrainedModel) -> Iterator[None]:
    """Compute the adapter in the base model's type, whatever type its parameters are kept in."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        yield
