"""Token recovery: which tokens stood in the texts that an update was computed from.

The gradient of ``lora_A`` is ``(dY B)^T X`` with ``X`` the inputs of its layer, a row for each token. So each of its
rows is a mixture of those inputs; and in the first block they are the normed embeddings of the tokens, which everybody
knows who has the base model: a dictionary. Which of its atoms the rows are mixtures of is found by
:func:`fedpriv.leakage.pursuit.pursue`. The idea is that of DAGER (Petrov et al. 2024, arXiv 2405.15586). Under AdamW,
and where the first block is hidden, several layers are asked together (:mod:`fedpriv.leakage.layered`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.factors import first_factors
from fedpriv.leakage.first_inputs import first_inputs
from fedpriv.leakage.known_layers import KnownLayers, known_layers
from fedpriv.leakage.language import frequency_of
from fedpriv.leakage.layered import presence, pursue_layers
from fedpriv.leakage.pursuit import Float64, pursue, whitener
from fedpriv.leakage.views import View
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState, starting_adapter
from fedpriv.training.examples import Example

ADAPTIVE_NOISE = 3.0
"""For updates of AdamW: it makes every coordinate as large as any other, which no mixture of inputs is. From 1 to 10 it
makes little difference, below 0.3 the attack finds clearly less (made-up notes, the tiny model and SmolLM2-135M)."""

DEPTH = 6
"""So many of the layers that are visible are asked, the first ones: an input further up depends more on its context."""


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """What an attacker knows before it sees anything: the base model, and how often tokens occur in public text.

    Attributes
    ----------
    tensors : tuple of str
        The tensors ``lora_A`` whose layers have these inputs: those of the first block that adapt its attention.
    frequency : ndarray of float64, (vocabulary,)
        How often each token occurs; sums to 1.
    noise : float
        0 for plain gradients and steps along them, :data:`ADAPTIVE_NOISE` for AdamW's updates: the plan says which.
    layers : KnownLayers or None
        Of all adapted layers, for updates of AdamW and views without the first block; None if no adapter was given.
    """

    tensors: tuple[str, ...]
    noise: float
    layers: KnownLayers | None = field(repr=False)
    frequency: Float64 = field(repr=False)
    whitener: Float64 = field(repr=False)
    whitened: Float64 = field(repr=False)

    @property
    def by_frequency(self) -> list[int]:
        """All tokens, the most frequent first: the guesses of somebody who sees no update."""
        return [int(token) for token in np.argsort(-self.frequency, kind="stable")]

    def common(self, count: int) -> frozenset[int]:
        """Return the ``count`` most frequent tokens, which tell nothing about one patient."""
        return frozenset(self.by_frequency[:count])


def token_dictionary(
    model_folder: Path,
    lora: LoraChoice,
    public: Sequence[Example],
    *,
    noise: float = 0.0,
    adapter: AdapterState | None = None,
) -> Dictionary:
    """Make the dictionary of a base model; takes seconds to a minute, and depends on nothing private.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    public : sequence of Example
        Texts of the same kind that anybody may have, such as made-up notes.
    noise : float
        See :class:`Dictionary`.
    adapter : dict of ndarray of float32, optional
        Where the round began, to look at further layers than the first block; for AdamW's updates a fresh one stands
        for it if none is given.

    Raises
    ------
    ModelError
        As :func:`fedpriv.leakage.first_inputs.first_inputs`.
    InputError
        If further layers are looked at and no public text has more than 16 tokens.
    """
    tensors, atoms = first_inputs(model_folder, lora)
    frequency = frequency_of(public, len(atoms))
    if adapter is None and noise:
        adapter = starting_adapter(model_folder, lora, 0)
    white = whitener(atoms, frequency)
    return Dictionary(
        tensors=tensors,
        noise=noise,
        layers=None if adapter is None else known_layers(model_folder, lora, adapter, public, noise=noise),
        frequency=frequency,
        whitener=white,
        whitened=atoms @ white,
    )


def recover_tokens(view: View, dictionary: Dictionary, count: int) -> tuple[int, ...]:
    """Guess ``count`` distinct tokens of the texts behind an update, the likeliest first.

    What the pursuit does not name is filled up with the most frequent tokens: an attacker who sees nothing does the
    same, so that chance is part of every answer.

    Raises
    ------
    InputError
        If a value that is visible is not finite.
    """
    factors = first_factors(view)
    seen = [factors[name] for name in dictionary.tensors if name in factors]
    rows = [tensor / size for tensor in seen if (size := float(np.linalg.norm(tensor)))]
    if not all(np.isfinite(tensor).all() for tensor in seen):
        raise InputError("The view holds values that are not finite", todo="look at how this update was made")
    if rows and not dictionary.noise:
        found = pursue(dictionary.whitened, np.concatenate(rows) @ dictionary.whitener, count)
    else:
        found = _by_layers(view, dictionary, count)
    return tuple(dict.fromkeys([*found, *dictionary.by_frequency]))[:count]


def _by_layers(view: View, dictionary: Dictionary, count: int) -> list[int]:
    """Name tokens that the first visible layers speak for; none if there is nothing to look at."""
    if dictionary.layers is None:
        return []
    evidence = dictionary.layers.evidence(view)
    groups = sorted(evidence)[:DEPTH]
    prior = presence(dictionary.frequency, count)
    return pursue_layers(dictionary.layers.typical(groups), evidence, count, prior)
