"""When an attack has measured something, and what: the one rule that the rates of all attacks on updates follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fedpriv.leakage.intervals import Interval, bootstrap, sign_flip
from fedpriv.leakage.pursuit import Float64

LEAST_TRIALS = 5
"""Under so many texts an interval says nothing."""
MOST_LUCK = 0.05


@dataclass(frozen=True, kw_only=True)
class AboveChance:
    """What was measured.

    Attributes
    ----------
    above_chance : Interval or None
        What the attack reached, minus what it reaches without having seen anything; None if it was not measured.
    control : Interval
        What it reached, chance included, where it must succeed.
    trials : int
        How many texts were attacked.
    """

    above_chance: Interval | None
    control: Interval
    trials: int

    @property
    def measured(self) -> bool:
        """Whether the number means anything."""
        return self.above_chance is not None

    def __str__(self) -> str:
        return "not measured" if self.above_chance is None else str(self.above_chance)

    @classmethod
    def judged(cls, found: Float64, *, control: Float64, beyond: Float64, least: float, seed: int) -> Self:
        """Return means over texts with bootstrap intervals.

        *Guarantee*: nothing is reported where the control stays under ``least``, or is not above chance, or where there
        are fewer than :data:`LEAST_TRIALS` texts of either. An interval lies above zero only if a sign-flip test agrees
        (at most ``MOST_LUCK``): lucky hits on a few texts alone are no leak. *Assumption*: where nothing leaks, luck on
        the views in question is as likely as luck on what they are compared with.

        Parameters
        ----------
        found : ndarray of float64, (trials,)
            What the attack reached above chance on the views in question.
        control, beyond : ndarray of float64, (controls,)
            What it reached on its positive control, with chance and above it.
        least : float
            The mean of ``control`` under which the attack does not work.
        seed : int
            Of the resampling.
        """
        reached = bootstrap([control], _mean, seed=seed)
        works = reached.value >= least and bootstrap([beyond], _mean, seed=seed).above_zero
        enough = min(len(found), len(control)) >= LEAST_TRIALS
        above = bootstrap([found], _mean, seed=seed)
        if above.above_zero and sign_flip(found, seed=seed) > MOST_LUCK:
            above = replace(above, low=0.0)
        return cls(
            above_chance=above if works and enough else None,
            control=reached,
            trials=len(found),
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
