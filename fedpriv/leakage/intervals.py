"""Intervals by the bootstrap (Efron 1979): how far a mean of few trials can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError

RESAMPLES = 2000
EXACT = 12
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        Percentiles of the resampled values; all the same where the trials do not differ.
    """

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(
    samples: Sequence[NDArray[np.float64]],
    statistic: Callable[..., float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a statistic of samples, and its percentile interval over resampled ones.

    Parameters
    ----------
    samples : sequence of ndarray of float64
        Independent samples; each is resampled by itself along its first axis.
    statistic : Callable
        Of as many arrays as there are samples.
    seed : int
        The same seed and samples give the same interval.

    Raises
    ------
    InputError
        If a sample is empty.
    """
    if not samples or not all(len(sample) for sample in samples):
        raise InputError("An interval needs at least one trial", todo="measure some")
    rng = np.random.default_rng(seed)
    values = [
        statistic(*(sample[rng.integers(0, len(sample), len(sample))] for sample in samples)) for _ in range(resamples)
    ]
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(statistic(*samples), float(low), float(high))


def sign_flip(differences: NDArray[np.float64], *, seed: int = 0) -> float:
    """Return how often a sum as large as this one comes about where each difference could as well be the other way.

    The one-sided sign-flip test (Fisher 1935), exact for up to :data:`EXACT` differences that are not zero. It says
    what the bootstrap does not of few and sparse trials: three lucky ones of six, and none unlucky, happen one time in
    eight.

    Parameters
    ----------
    differences : ndarray of float64, (trials,)
        What was found minus what chance finds, of each trial; symmetric about zero where nothing was found.
    seed : int
        Of the random signs where there are too many for all.
    """
    given = differences[differences != 0]
    if len(given) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(given))[:, None] >> np.arange(len(given))) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), (RESAMPLES, len(given)))
        signs[0] = 1  # what was seen is one of the ways
    sums = signs @ given
    return float(np.mean(sums >= given.sum() - 1e-12 * np.abs(given).sum()))
