"""Membership: was this very note among those that an update was computed from?

An update is a sum of gradients. So the gradient of a note that was in it points more its way than that of a note that
was not: the cosine between the two, over the tensors that are visible, orders candidates. It needs no shadow model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError
from fedpriv.leakage.intervals import Interval, bootstrap
from fedpriv.leakage.views import View
from fedpriv.training.adapter import Float32

FALSE_ALARMS = 0.01


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well members are told from others.

    Attributes
    ----------
    auroc : Interval
        Chance that a random member scores higher than a random other; 0.5 is guessing.
    found : Interval
        Share of members found while at most 1 % of the others are taken for one; 0.01 is guessing. With fewer than
        100 others, none of them may be.
    members, others : int
        How many were scored.
    """

    auroc: Interval
    found: Interval
    members: int
    others: int


def membership_score(view: View, gradient: Mapping[str, Float32]) -> float:
    """Return the cosine between an update, as far as it is visible, and the descent along a candidate's gradient.

    Parameters
    ----------
    view : View
        What a party holds of the update.
    gradient : dict of ndarray of float32
        Of the candidate note, taken where the round began (:func:`fedpriv.leakage.gradients.gradient_of`).

    Returns
    -------
    float
        In -1 to 1; 0 if nothing is visible.

    Raises
    ------
    InputError
        If a value is not finite, or a shape differs.
    """
    names = sorted(set(view.tensors) & set(gradient))
    if any(view.tensors[name].shape != gradient[name].shape for name in names):
        raise InputError("The view and the gradient are of different adapters", todo="use the study's plan for both")
    if not names:
        return 0.0
    seen = np.concatenate([view.tensors[name].ravel() for name in names])
    down = -np.concatenate([gradient[name].ravel().astype(np.float64) for name in names])
    if not (np.isfinite(seen).all() and np.isfinite(down).all()):
        raise InputError("The view or the gradient holds values that are not finite")
    size = float(np.linalg.norm(seen) * np.linalg.norm(down))
    return float(seen @ down) / size if size else 0.0


def membership(members: Sequence[float], others: Sequence[float], *, seed: int = 0) -> Membership:
    """Return how well scores tell members from others, with bootstrap intervals over both.

    Raises
    ------
    InputError
        If there is no member or no other.
    """
    samples = [np.array(members, np.float64), np.array(others, np.float64)]
    return Membership(
        auroc=bootstrap(samples, auroc, seed=seed),
        found=bootstrap(samples, found_at_few_alarms, seed=seed),
        members=len(members),
        others=len(others),
    )


def auroc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the share of pairs in which the member scores higher; half of those that are equal."""
    ordered = np.sort(others)
    below, upto = (np.searchsorted(ordered, members, side=side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * members.size * others.size))


def found_at_few_alarms(
    members: NDArray[np.float64], others: NDArray[np.float64], *, alarms: float = FALSE_ALARMS
) -> float:
    """Return the share of members above the score that at most a share ``alarms`` of the others exceeds."""
    allowed = int(alarms * others.size)
    threshold = np.sort(others)[::-1][allowed] if allowed < others.size else -np.inf
    return float((members > threshold).mean())
