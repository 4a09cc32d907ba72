"""Losses: how well a model with a released adapter, or without it, foretells each of some notes.

Whoever holds the adapter and the base model can compute them. The attacks on a released adapter use nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.pursuit import Float64
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import IGNORED, Example, collate

POSITIONS_AT_ONCE = 1024
"""Positions whose logits are in memory at a time, padding included: 1024 x 49152 float32 are 192 MiB."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of some notes under one model.

    Attributes
    ----------
    summed : ndarray of float64, (notes,)
        Over all tokens that are to be foretold, in nats: minus the logarithm of the note's probability.
    tokens : ndarray of int64, (notes,)
        How many those are.
    """

    summed: Float64 = field(repr=False)
    tokens: np.ndarray = field(repr=False)

    @property
    def mean(self) -> Float64:
        """Nats a token: (notes,)."""
        return self.summed / self.tokens


def losses(model_folder: Path, lora: LoraChoice, adapter: AdapterState | None, notes: Sequence[Example]) -> Losses:
    """Return the loss of each note, the base model's weights in float32.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    adapter : dict of ndarray of float32, or None
        The released adapter; None for the base model without one.
    notes : sequence of Example
        Each with a token to foretell. Of one with questions, the answers are.

    Raises
    ------
    InputError
        If a note has nothing to foretell, or a loss is not finite.
    TrainingError
        If the adapter is not one of this model and section.
    ModelError
        If the model cannot be loaded.
    """
    import torch
    from torch.nn import functional

    from fedpriv.training.loss import wanted_logits
    from fedpriv.training.model import base_of, load_model, put_adapter

    model = load_model(model_folder, lora)
    if adapter is not None:
        put_adapter(model, adapter)
    model.eval()
    base = base_of(model)
    summed, tokens = np.zeros(len(notes)), np.zeros(len(notes), np.int64)
    with torch.no_grad(), contextlib.nullcontext() if adapter is not None else model.disable_adapter():
        for group in _groups(notes):
            ids, labels = (part.to(base.device) for part in collate([notes[index] for index in group]))
            wanted = labels != IGNORED
            each = functional.cross_entropy(wanted_logits(base, ids, wanted), labels[wanted], reduction="none").double()
            rows = wanted.nonzero()[:, 0].cpu().numpy()
            summed[group] = np.bincount(rows, each.cpu().numpy(), len(group))
            tokens[group] = np.bincount(rows, minlength=len(group))
    if not tokens.all():
        raise InputError("A note has no token to foretell", todo="leave out notes of under two tokens")
    if not np.isfinite(summed).all():
        raise InputError("The loss of a note is not finite", todo="look at how this adapter was trained")
    return Losses(summed=summed, tokens=tokens)


def gain(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    notes: Sequence[Example],
    references: Sequence[AdapterState] | None = (),
) -> Float64:
    """Return by how much the adapter foretells each note better than the reference does: nats a note, (notes,).

    Parameters
    ----------
    model_folder, lora, adapter, notes
        As for :func:`losses`.
    references : sequence of adapters, or None
        Adapters of the same kind of notes that were not trained on any of these: their mean loss is the reference. By
        default it is the base model without an adapter. With None there is no reference: minus the loss alone.

    Raises
    ------
    FedprivError
        As :func:`losses`.
    """
    own = losses(model_folder, lora, adapter, notes).summed
    if references is None:
        return -own
    others = [losses(model_folder, lora, reference, notes).summed for reference in references or (None,)]
    return np.mean(others, axis=0) - own


def _groups(notes: Sequence[Example]) -> Iterator[list[int]]:
    """Divide the numbers of notes into groups of similar length that fit into memory."""
    group: list[int] = []
    for index in sorted(range(len(notes)), key=lambda index: len(notes[index])):
        if group and (len(group) + 1) * len(notes[index]) > POSITIONS_AT_ONCE:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
