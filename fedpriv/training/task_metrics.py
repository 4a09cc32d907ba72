"""How well questions are answered: AUROC with its standard error, and F1. Numbers over many patients, never of one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_OF_A_CLASS = 3
"""With fewer examples of a class its AUROC would tell where single patients stand: it is not reported."""

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Auroc:
    """An area under the receiver operating characteristic.

    Attributes
    ----------
    value : float
        The probability that an example with yes is scored above one with no, ties counting half.
    error : float
        Its standard error.
    """

    value: float
    error: float


def auroc(scores: Float64, yes: Bool) -> Auroc | None:
    """Return the AUROC of scores with its standard error after DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988).

    The placement of an example is the share of the other class that it is rightly ordered against; the variance of the
    mean of these shares is the sum over both classes of their sample variances over the class's size. Midranks give the
    placements in O(n log n) (Sun and Xu, IEEE Signal Processing Letters 21, 2014).

    Parameters
    ----------
    scores : ndarray of float64, (examples,)
        The higher, the likelier yes.
    yes : ndarray of bool, (examples,)
        The answers.

    Returns
    -------
    Auroc or None
        None where a class has fewer than :data:`LEAST_OF_A_CLASS` examples: there is no 0.5 in place of a number.
    """
    positive, negative = scores[yes], scores[~yes]
    m, n = len(positive), len(negative)
    if min(m, n) < LEAST_OF_A_CLASS:
        return None
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - _midranks(positive)) / n
    below = 1.0 - (ranks[m:] - _midranks(negative)) / m
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n
    return Auroc(float(above.mean()), math.sqrt(max(0.0, float(variance))))


def micro_f1(predicted: Bool, yes: Bool) -> float:
    """Return F1 over all answers of all questions together: ``2 TP / (2 TP + FP + FN)``; 1.0 if no yes is anywhere.

    Parameters
    ----------
    predicted, yes : ndarray of bool, (examples, questions)
    """
    return _f1(int((predicted & yes).sum()), int((predicted ^ yes).sum()))


def macro_f1(predicted: Bool, yes: Bool) -> float:
    """Return the mean of the questions' F1, over those that have a yes or were answered with one."""
    of_each = [
        _f1(int((predicted[:, q] & yes[:, q]).sum()), int((predicted[:, q] ^ yes[:, q]).sum()))
        for q in range(yes.shape[1])
        if predicted[:, q].any() or yes[:, q].any()
    ]
    return sum(of_each) / len(of_each) if of_each else 1.0


def answer_metrics(probabilities: Float64, yes: Bool) -> dict[str, float]:
    """Return the metrics of answered questions.

    Parameters
    ----------
    probabilities : ndarray of float64, (examples, questions)
        Of yes.
    yes : ndarray of bool, (examples, questions)
        The answers.

    Returns
    -------
    dict of str to float
        ``heldout_micro_f1`` and ``heldout_macro_f1``, where any answer is yes or was taken for one: else there is
        nothing to find, and nothing that finding it well could mean. Where there are enough of both classes
        ``heldout_auroc`` and ``heldout_auroc_se``: the mean over the questions that have one, whose errors are taken
        as wholly correlated, which overstates the mean's.
    """
    predicted = probabilities > 0.5
    areas = [area for q in range(yes.shape[1]) if (area := auroc(probabilities[:, q], yes[:, q])) is not None]
    found: dict[str, float] = {}
    if (predicted | yes).any():
        found = {"heldout_micro_f1": micro_f1(predicted, yes), "heldout_macro_f1": macro_f1(predicted, yes)}
    if areas:
        found["heldout_auroc"] = sum(area.value for area in areas) / len(areas)
        found["heldout_auroc_se"] = sum(area.error for area in areas) / len(areas)
    return found


def _midranks(values: Float64) -> Float64:
    """Return the rank of each value from 1 on; equal ones share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def _f1(right: int, wrong: int) -> float:
    return 1.0 if right + wrong == 0 else 2 * right / (2 * right + wrong)
