"""The accountant: what noise costs, and how much of it an epsilon needs.

It stands on privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022) as Google's dp-accounting computes
them: no bound that is loose, and none that could be too small. It imports no torch.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpriv.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

_Part = tuple[float, float, int]
_Parts = tuple[_Part, ...]

_WIDTHS = tuple(1e-2 / 4**number for number in range(7))
"""Widths of the grid on which privacy losses are rounded up."""

_CHANGE = 0.01
"""A grid is fine enough when one of four times its width gives an epsilon that is larger by at most this share: the
error falls with the square of the width, so that what is left of it is below a thousandth."""

_TOLERANCE = 1.001
_LARGEST_NOISE = 1e6


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The Poisson-sampled Gaussian mechanism, so many times in a row.

    Attributes
    ----------
    noise_multiplier : float
        sigma: standard deviation of the noise over the L2 norm that one record may add to the sum.
    sampling : float
        q: probability with which each record, for itself, is in a step; 1 is the plain Gaussian mechanism.
    steps : int
        How often.
    """

    noise_multiplier: float
    sampling: float
    steps: int


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return epsilon of all mechanisms on the same data together, at ``delta``.

    *Guarantee*: an upper bound, above the exact value by less than a thousandth of it. Neighbours differ in one record
    that is there or counts nothing ("add or remove"). The order does not matter.
    *Assumption*: that of every mechanism: noise and draws are unpredictable, and no result of a step decides on the
    noise of a later one.

    Raises
    ------
    ConfigError
        If ``delta`` is not above 0 and below 1.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"No epsilon can be said for a delta of {delta:g}", todo="train on two patients or more")
    parts = _parts(mechanisms)
    if any(sigma <= 0 for sigma, _, _ in parts):
        return math.inf
    return _epsilon(parts, delta) if parts else 0.0


def _parts(mechanisms: Iterable[Mechanism]) -> _Parts:
    """Return mechanisms as sorted (sigma, q, steps), equal ones as one with the sum of their steps."""
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.noise_multiplier, mechanism.sampling] += mechanism.steps
    return tuple(sorted((sigma, q, count) for (sigma, q), count in steps.items() if count))


@functools.lru_cache(maxsize=1024)
def _epsilon(parts: _Parts, delta: float) -> float:
    coarser = math.inf
    for width in _WIDTHS:
        epsilon = _on_grid(parts, delta, width)
        if abs(coarser - epsilon) <= _CHANGE * epsilon:
            return epsilon
        coarser = epsilon
    return coarser


def _is_at_most(parts: _Parts, delta: float, limit: float) -> bool:
    """Say whether epsilon is at most ``limit``, on no finer a grid than that needs; in doubt it is not."""
    coarser = math.inf
    for width in _WIDTHS:
        epsilon = _on_grid(parts, delta, width)
        if epsilon <= limit:
            return True
        fall = coarser - epsilon
        if epsilon - fall / 4 > limit or fall <= _CHANGE / 16 * epsilon:  # the next falls are 1/16, 1/256, ... of it
            return False
        coarser = epsilon
    return False


@functools.lru_cache(maxsize=1024)
def _on_grid(parts: _Parts, delta: float, width: float) -> float:
    composed = _composed(parts[0], width)
    for part in parts[1:]:
        composed = composed.compose(_composed(part, width))
    return float(composed.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=16)
def _composed(part: _Part, width: float) -> PrivacyLossDistribution:
    from dp_accounting.pld import privacy_loss_distribution

    sigma, sampling, steps = part
    once = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, value_discretization_interval=width, sampling_prob=sampling, use_connect_dots=True
    )
    return once.self_compose(steps)


@functools.lru_cache(maxsize=256)
def noise_multiplier_for(
    epsilon: float, delta: float, *, sampling: float, steps: int, spent: tuple[Mechanism, ...] = ()
) -> float:
    """Return the smallest sigma, to a thousandth, whose ``steps`` steps come to at most ``epsilon`` with ``spent``.

    Parameters
    ----------
    epsilon, delta : float
        What may be spent in all.
    sampling : float
        q of the steps to come.
    steps : int
        How many are to come.
    spent : tuple of Mechanism
        What has been done on the same data and counts too.

    Returns
    -------
    float
        sigma; ``inf`` if nothing is left, however much noise there is.
    """

    def parts(sigma: float) -> _Parts:
        return _parts((*spent, Mechanism(noise_multiplier=sigma, sampling=sampling, steps=steps)))

    def fits(sigma: float) -> bool:
        return _is_at_most(parts(sigma), delta, epsilon)

    high = 1.0
    while not fits(high):
        high *= 2
        if high > _LARGEST_NOISE:
            return math.inf
    low = high / 2
    while fits(low):
        low, high = low / 2, low
    while high / low > _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    while _epsilon(parts(high), delta) > epsilon:  # a finer grid may give a little more: what is reported fits, too
        high *= math.sqrt(_TOLERANCE)
    return high
