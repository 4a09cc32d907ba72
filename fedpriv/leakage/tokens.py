"""Token recovery: which tokens stood in the texts that an update was computed from.

The gradient of ``lora_A`` is ``(dY B)^T X`` with ``X`` the inputs of its layer, a row for each token. So each of its
rows is a mixture of those inputs; and in the first block they are the normed embeddings of the tokens, which everybody
knows who has the base model: a dictionary. Which of its atoms the rows are mixtures of is found by
:func:`fedpriv.leakage.pursuit.pursue`. The idea is that of DAGER (Petrov et al. 2024, arXiv 2405.15586).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.first_inputs import first_inputs
from fedpriv.leakage.pursuit import Float64, pursue, whitener
from fedpriv.leakage.views import View
from fedpriv.study.plan import LoraChoice
from fedpriv.training.examples import Example

SMOOTHING = 0.1
"""Counted for every token beside what public text shows: a token that is not there can still occur."""

ADAPTIVE_NOISE = 3.0
"""For updates of AdamW: it makes every coordinate as large as any other, which no mixture of inputs is. From 1 to 10 it
makes little difference, below 0.3 the attack finds clearly less (made-up notes, the tiny model and SmolLM2-135M)."""


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
    spread : ndarray of float64, (width,)
        Root mean square of each coordinate of the inputs: what AdamW divided it by, more or less.
    """

    tensors: tuple[str, ...]
    noise: float
    spread: Float64 = field(repr=False)
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
    model_folder: Path, lora: LoraChoice, public: Sequence[Example], *, noise: float = 0.0
) -> Dictionary:
    """Make the dictionary of a base model; takes seconds, and depends on nothing private.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    public : sequence of Example
        Texts of the same kind that anybody may have, such as made-up notes.
    noise : float
        See :class:`Dictionary`.

    Raises
    ------
    ModelError
        As :func:`fedpriv.leakage.first_inputs.first_inputs`.
    """
    tensors, atoms = first_inputs(model_folder, lora)
    counts = Counter(token for example in public for token in example)
    frequency = np.full(len(atoms), SMOOTHING)
    for token, count in counts.items():
        frequency[token] += count
    frequency /= frequency.sum()
    white = whitener(atoms, frequency, noise=noise)
    return Dictionary(
        tensors=tensors,
        noise=noise,
        spread=np.sqrt(frequency @ np.square(atoms)),
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
    seen = [view.tensors[name] for name in dictionary.tensors if name in view.tensors]
    rows = [tensor / size for tensor in seen if (size := float(np.linalg.norm(tensor)))]
    if not all(np.isfinite(tensor).all() for tensor in seen):
        raise InputError("The view holds values that are not finite", todo="look at how this update was made")
    found: list[int] = []
    if rows:
        joined = np.concatenate(rows) * (dictionary.spread if dictionary.noise else 1.0)
        white = joined @ dictionary.whitener
        prior = dictionary.frequency if dictionary.noise else None
        found = pursue(dictionary.whitened, white, count, prior=prior)
    return tuple(dict.fromkeys([*found, *dictionary.by_frequency]))[:count]
