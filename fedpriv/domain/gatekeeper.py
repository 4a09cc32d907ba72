"""The gatekeeper: what a training child wrote is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from fedpriv.errors import FedprivError, GatekeeperError
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.study.plan import ANSWER_METRICS, MetricName
from fedpriv.training import noise
from fedpriv.training.adapter import flatten, layout_of, load_metrics, load_state

_DIGITS = 6
_LARGEST_LOSS = 1000.0
"""Nats a token; a uniform guess over a vocabulary of a million tokens loses 14."""
_LOSSES: frozenset[MetricName] = frozenset({"train_loss", "heldout_loss"})
_KNOWN_METRICS: frozenset[MetricName] = frozenset(get_args(MetricName))


def check_update(raw: Path, before: Mapping[str, np.ndarray], plan: Plan, round_number: int) -> np.ndarray:
    """Return the update in ``raw`` as one vector, if it may be sealed.

    *Guarantee*: it holds the tensors that the round trains, and nothing was done to the others.

    Parameters
    ----------
    raw : Path
        The adapter after training, as the child wrote it (safetensors).
    before : Mapping[str, numpy.ndarray]
        The adapter the round started from; names, shapes and dtype (float32) must be the same.
    round_number : int
        Which tensors are trained depends on it.

    Returns
    -------
    numpy.ndarray
        float32, shape (P,): adapter after minus before, of the trained tensors in sorted-name order.

    Raises
    ------
    GatekeeperError
        If a tensor is missing, renamed, of another shape or dtype, not finite, changed although it is not trained in
        the round, or the L2 norm is over ``plan.protection.max_update_norm``.
    """
    try:
        after = load_state(raw, layout_of(before))
    except FedprivError as error:
        raise GatekeeperError(f"The trained adapter may not leave: {error.what}", kept="Nothing was sent") from error
    trained = trained_tensors(plan.averaging, before, round_number)
    # Bits, because a changed one is a change: of zero's sign, for example. Which tensor it was is not told: training
    # code could choose it.
    if any(after[name].tobytes() != before[name].tobytes() for name in set(before) - set(trained)):
        raise GatekeeperError(
            f"The training code changed parameters that round {round_number} does not train",
            kept="Nothing was sent",
            todo="ask the researcher to train only the parameters named in context.trained",
        )
    update = flatten({name: after[name] for name in trained}) - flatten({name: before[name] for name in trained})
    if not np.isfinite(update).all():
        raise GatekeeperError("The trained adapter holds values that are not finite", kept="Nothing was sent")
    norm = float(np.linalg.norm(update.astype(np.float64)))
    if norm > plan.protection.max_update_norm:
        raise GatekeeperError(
            # How far, training code could choose: it is not told.
            f"The update's L2 norm is over the plan's limit {plan.protection.max_update_norm:.3g}",
            kept="Nothing was sent",
            todo="ask the researcher for a smaller learning rate",
        )
    return update


def privatise(update: np.ndarray, *, clip: float, noise_multiplier: float) -> np.ndarray:
    """Return an update scaled down to L2 norm ``clip`` if it is longer, with noise on every parameter.

    *Guarantee*: the Gaussian mechanism with ``noise_multiplier``, once. Neighbours: this domain's data are there, or
    its update is zero. So what the code that made the update did with the data does not matter.
    *Assumption*: the noise is unpredictable (:mod:`fedpriv.training.noise`), and the result is kept and used again
    wherever the same update is sent again: the mean of two results would have less noise.

    Parameters
    ----------
    update : ndarray of float32, shape (P,)
        Finite; see :func:`check_update`.
    clip : float
        C.
    noise_multiplier : float
        sigma; the noise has the standard deviation ``sigma C``.

    Returns
    -------
    ndarray of float32, shape (P,)
    """
    exact = update.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    factor = min(1.0, clip / norm) if norm > 0 else 1.0
    return (exact * factor + noise.gaussian(exact.size) * (noise_multiplier * clip)).astype(np.float32)


def check_metrics(path: Path, allowed: Collection[MetricName], bounds: Mapping[MetricName, float]) -> dict[str, float]:
    """Return the metrics that may leave: those that are allowed, numbers in range, rounded to six digits.

    Parameters
    ----------
    bounds : Mapping[MetricName, float]
        The most that a metric can honestly be, see :func:`metric_bounds`; the least is 0.

    With a privacy section, numbers about training patients stay here: no noise is on them.

    Raises
    ------
    GatekeeperError
        If the file holds a name that no plan can list, or anything but a number in range. Neither the odd name nor the
        odd number is told: code that wants a note to leave could put it there.
    """
    try:
        values = load_metrics(path)
    except FedprivError as error:
        raise GatekeeperError(f"The metrics may not leave: {error.what}", kept="Nothing was sent") from error
    metrics: dict[str, float] = {}
    for name, value in values.items():
        if name not in _KNOWN_METRICS:
            raise GatekeeperError(
                "The training code reports a metric that fedpriv does not know", kept="Nothing was sent"
            )
        is_count = name not in _LOSSES and name not in ANSWER_METRICS
        if not 0 <= value <= bounds.get(name, -1.0) or (is_count and value != int(value)):
            raise GatekeeperError(f"The metric {name} is out of range", kept="Nothing was sent")
        if name in allowed:
            metrics[name] = float(f"{value:.{_DIGITS}g}")
    return metrics


def metric_bounds(plan: Plan, *, examples: int, heldout_examples: int) -> dict[MetricName, float]:
    """Return the most that each metric can honestly be at a domain with so many examples."""
    training = plan.training
    return {
        "train_loss": _LARGEST_LOSS,
        "heldout_loss": _LARGEST_LOSS,
        "examples": examples,
        "heldout_examples": heldout_examples,
        "train_tokens": training.steps * training.batch_size * training.max_tokens,
        "heldout_tokens": heldout_examples * training.max_tokens,
        **dict.fromkeys(ANSWER_METRICS if plan.task.is_predictive else (), 1.0),
    }
