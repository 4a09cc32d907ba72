"""Canary exposure: does the adapter give away a secret that stood in a training note? (Carlini et al. 2019.)

Carlini et al. 2019, *The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks* (USENIX
Security, arXiv 1802.08232). A canary is a sentence of a stated format whose fill is drawn at random. It is put into the
training notes some times. Afterwards all fills are ordered by the loss of their sentence; the exposure is

    log2 |R| - log2 rank

for the rank of the fill that was inserted, among the space ``R`` of all fills. It is estimated by sampling, as in the
paper's *Efficiently Approximating Exposure*: the rank is that among ``m`` other fills drawn at random. So nothing is
assumed about how losses are distributed, as the paper's other estimate does with a skew-normal one, and no exposure
beyond ``log2 (m + 1)`` can be found. A fill that was never inserted has a rank that is uniform: in the mean
``1 / ln 2 = 1.44`` bits, not zero.

The paper orders fills by the model's loss alone (``references=None``). By default it is taken relative to the base
model's, which the attacker has, too: some fills are easier for any model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError
from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.leakage.intervals import Interval, bootstrap
from fedpriv.leakage.losses import gain
from fedpriv.leakage.pursuit import Float64
from fedpriv.leakage.rate import LEAST_CONTROL
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Encoder

SAMPLES = 1023
"""Other fills that a rank is taken among: exposures of up to 10 bits."""


@dataclass(frozen=True, kw_only=True)
class CanaryFormat:
    """How canaries look.

    Attributes
    ----------
    text : str
        With one ``{}``, where the fill stands.
    symbols : tuple of str
        What fills are made of, each drawn for itself.
    length : int
        How many of them a fill has.
    """

    text: str = "The patient's record number is {}."
    symbols: tuple[str, ...] = tuple("0123456789")
    length: int = 6

    def __post_init__(self) -> None:
        if self.text.count("{}") != 1 or len(set(self.symbols)) < max(2, len(self.symbols)) or self.length < 1:
            raise InputError("A canary's text has one {} for a fill, of at least one of two symbols or more")

    @property
    def space(self) -> int:
        """``|R|``: how many fills there are."""
        return len(self.symbols) ** self.length

    def fills(self, count: int, seed: int) -> list[str]:
        """Draw so many different fills.

        Raises
        ------
        InputError
            If there are not so many.
        """
        if count > self.space:
            raise InputError(f"There are only {self.space} fills, not {count}", todo="use longer fills")
        rng = np.random.default_rng(seed)
        found: dict[str, None] = {}
        while len(found) < count:
            found["".join(self.symbols[index] for index in rng.integers(0, len(self.symbols), self.length))] = None
        return list(found)

    def texts(self, fills: Sequence[str]) -> list[str]:
        """Return the canaries of fills."""
        return [self.text.replace("{}", fill) for fill in fills]


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What was measured.

    Attributes
    ----------
    above_chance : Interval or None
        Mean exposure of the inserted canaries minus that of as good ones that never were, in bits; None if it was not
        measured.
    inserted, never : Interval
        Mean exposures, in bits; 1.44 is chance.
    control : Interval
        Mean exposure where the canaries were learnt by heart, in bits.
    most : float
        The largest exposure that can be found, in bits.
    canaries : int
        How many were inserted.
    """

    above_chance: Interval | None
    inserted: Interval
    never: Interval
    control: Interval
    most: float
    canaries: int

    @property
    def measured(self) -> bool:
        """Whether the numbers mean anything."""
        return self.above_chance is not None

    def __str__(self) -> str:
        return "not measured" if self.above_chance is None else f"{self.above_chance} bits of {self.most:.0f}"


def exposures(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    canaries: CanaryFormat,
    fills: Sequence[str],
    *,
    max_tokens: int,
    samples: int = SAMPLES,
    seed: int = 0,
    references: Sequence[AdapterState] | None = (),
) -> Float64:
    """Return the exposure of each fill under a released adapter, in bits: (fills,).

    Parameters
    ----------
    model_folder, lora, adapter
        The base model, the plan's section and the released adapter.
    canaries : CanaryFormat
        Their format.
    fills : sequence of str
        Those whose exposure is wanted.
    max_tokens : int
        Tokens that a note was cut to in training.
    samples : int
        Other fills that the rank is taken among; none of ``fills`` is one of them.
    seed : int
        Of these.
    references : sequence of adapters, or None
        As for :func:`fedpriv.leakage.losses.gain`.

    Raises
    ------
    InputError
        If there are not so many fills, or a canary is cut so that its fill is not whole.
    FedprivError
        As :func:`fedpriv.leakage.losses.losses`.
    """
    wanted = set(fills)
    others = [fill for fill in canaries.fills(min(samples + len(wanted), canaries.space), seed) if fill not in wanted]
    texts = canaries.texts([*fills, *others[:samples]])
    notes = Encoder(model_folder, max_tokens).encode(texts)
    if any(len(note) >= max_tokens for note in notes):
        raise InputError("A canary does not fit into the tokens of an example", todo="shorten the canary")
    scores = gain(model_folder, lora, adapter, notes, references)
    return ranked_exposures(scores[: len(fills)], scores[len(fills) :])


def ranked_exposures(scores: NDArray[np.float64], others: NDArray[np.float64]) -> Float64:
    """Return ``log2 (m + 1) - log2 rank`` for each score among ``m`` others, of which those that are equal count half.

    Parameters
    ----------
    scores, others : ndarray of float64
        The higher, the better the adapter foretells the canary.

    Raises
    ------
    InputError
        If there is no other.
    """
    if not others.size:
        raise InputError("An exposure needs other fills to rank among", todo="use longer fills")
    ordered = np.sort(others)
    below, upto = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    ranks = 1 + others.size - (below + upto) / 2
    return math.log2(others.size + 1) - np.log2(ranks)


def exposure(
    inserted: Float64, never: Float64, *, control: Float64, most: float = math.log2(SAMPLES + 1), seed: int = 0
) -> Exposure:
    """Return the mean exposure above chance, with a bootstrap interval over canaries, or that it was not measured.

    *Guarantee*: where canaries that were learnt by heart do not reach 80 % of the largest exposure in the mean, or
    there are fewer than five, nothing is reported.
    *Limit*: an exposure of some bits is no rank of one: the secret cannot be read out by trying the best few fills. And
    it is about random fills; a real secret has more structure, or less.

    Parameters
    ----------
    inserted, never : ndarray of float64
        Exposures under the released adapter: of canaries in its training notes, and of others of the same format.
    control : ndarray of float64
        Exposures of canaries under an adapter that has learnt them by heart.
    most : float
        The largest exposure that can be found, in bits: that of rank one.
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If there is no canary of a kind.
    """
    reached = bootstrap([control], _mean, seed=seed)
    works = reached.value >= LEAST_CONTROL * most
    enough = min(inserted.size, never.size, control.size) >= LEAST_TRIALS
    above = bootstrap([inserted, never], lambda first, second: _mean(first) - _mean(second), seed=seed)
    return Exposure(
        above_chance=above if works and enough else None,
        inserted=bootstrap([inserted], _mean, seed=seed),
        never=bootstrap([never], _mean, seed=seed),
        control=reached,
        most=most,
        canaries=inserted.size,
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())
