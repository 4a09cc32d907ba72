"""Padding-free batches: examples one behind the other in one row, none of which attends to another.

The row has no padding, and every layer but attention works on each token for itself. Attention is done example by
example, each causal for itself, so no mask of the whole row is ever made. transformers calls it by the name
:data:`ATTENTION`; outside of :func:`segments` it is transformers' own ``sdpa``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from fedpriv.errors import ModelError
from fedpriv.training.examples import labels_of

ATTENTION = "fedpriv_packed"


class UnknownAttentionError(ModelError):
    """An architecture asks attention for more than it does here; its own attention is taken then."""


_rows: list[tuple[int, ...]] = []
"""Lengths of the examples in the row at work, last. Not thread-local: CUDA's backward pass has threads of its own."""


@dataclass(frozen=True)
class Packed:
    """A batch as one row.

    Attributes
    ----------
    tokens, positions, labels : Tensor of int64, (1, total)
        Positions begin at 0 in every example; labels as :func:`fedpriv.training.examples.labels_of` gives them.
    lengths : tuple of int
        Of the examples, in their order; their sum is the total.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> Packed:
        """Return the batch on a device."""
        return Packed(self.tokens.to(device), self.positions.to(device), self.labels.to(device), self.lengths)


def pack(batch: Sequence[Sequence[int]]) -> Packed:
    """Put the examples of a batch one behind the other."""
    return Packed(
        tokens=torch.tensor([[token for ids in batch for token in ids]]),
        positions=torch.cat([torch.arange(len(ids)) for ids in batch]).unsqueeze(0),
        labels=torch.tensor([[label for ids in batch for label in labels_of(ids)]]),
        lengths=tuple(len(ids) for ids in batch),
    )


@contextlib.contextmanager
def segments(lengths: tuple[int, ...]) -> Iterator[None]:
    """Let attention see examples of these lengths in the row; hold it around the backward pass, too.

    With checkpointing, a backward pass computes attention once more.
    """
    _rows.append(lengths)
    try:
        yield
    finally:
        _rows.pop()


def _attention(  # noqa: PLR0917 - transformers calls it so
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend within each segment: ``query`` (1, heads, total, size), ``key`` and ``value`` with as many heads or fewer.

    Returns
    -------
    tuple of Tensor and None
        (1, total, heads, size).
    """
    softcap, window = options.get("softcap"), options.get("sliding_window")
    if any(options.get(name) is not None for name in ("s_aux", "position_bias")):
        raise UnknownAttentionError("The base model's attention has parts that fedpriv does not compute")
    if not _rows:
        if softcap is None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
            )
        return _capped((query, key, value), attention_mask, options | {"dropout": dropout, "scaling": scaling}), None
    parts, start = [], 0
    for length in _rows[-1]:
        q, k, v = (part[:, :, start : start + length] for part in (query, key, value))
        start += length
        mask = _window_mask(length, window, query.device) if window is not None and length > window else None
        if softcap is not None:
            parts.append(_capped((q, k, v), mask, options | {"dropout": dropout, "scaling": scaling}))
            continue
        grouped = q.shape[1] != k.shape[1]
        if grouped and mask is not None:
            k, v, grouped = _repeated(k, q.shape[1]), _repeated(v, q.shape[1]), False
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        parts.append(attended.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def _repeated(heads: torch.Tensor, count: int) -> torch.Tensor:
    """Repeat each of fewer heads, so that there are ``count``."""
    return heads.repeat_interleave(count // heads.shape[1], dim=1)


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Return what each position sees, (length, length): itself and those before it, ``window`` in all if there is one.

    As ``transformers.masking_utils`` has it: position ``j`` is seen from ``i`` where ``i - window < j <= i``.
    """
    here = torch.arange(length, device=device)
    distance = here.unsqueeze(1) - here.unsqueeze(0)
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _capped(
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], mask: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """Attention whose scores are ``softcap * tanh(score / softcap)`` (Gemma 2, arXiv 2408.00118), which SDPA lacks."""
    query = heads[0]
    key, value = (_repeated(part, query.shape[1]) for part in heads[1:])
    scaling, softcap = options["scaling"] or query.shape[-1] ** -0.5, options["softcap"]
    scores = query @ key.transpose(2, 3) * scaling
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = _window_mask(query.shape[2], None, query.device)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (functional.dropout(weights, p=options["dropout"]) @ value).transpose(1, 2)


def _mask(*args: Any, **options: Any) -> torch.Tensor | None:
    """Return no mask for a row of segments, each of which is causal for itself; else the one of ``sdpa``."""
    return None if _rows else sdpa_mask(*args, **options)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)
