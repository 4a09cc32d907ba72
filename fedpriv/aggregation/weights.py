"""How much each domain's update counts in the sum: shares, which sum to 1, and the factors that give them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from fedpriv.errors import StudyError
from fedpriv.study.plan import AggregationChoice


def fedavg(examples: Mapping[str, int]) -> dict[str, float]:
    """Return ``w_k = n_k / Σ_j n_j``, with ``n_k`` the number of training examples of domain ``k``.

    Source: McMahan et al. 2017, *Communication-Efficient Learning of Deep Networks from Decentralized Data*
    (arXiv 1602.05629), algorithm 1.

    *Assumption*: each domain reports its number of examples truthfully; a domain that overstates it counts more.

    Parameters
    ----------
    examples : mapping of str to int
        Number of examples by the domain's address, each at least 1.

    Returns
    -------
    dict of str to float
        Sorted by address.

    Raises
    ------
    StudyError
        If there is no domain, or one has no example.
    """
    if not examples:
        raise StudyError("there is no domain to weigh")
    for member, number in examples.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise StudyError(f"{member} has no training example", todo="leave it out of this study")
    total = sum(examples.values())
    return {member: examples[member] / total for member in sorted(examples)}


def uniform(members: Iterable[str]) -> dict[str, float]:
    """Return ``w_k = 1 / K`` for each of ``K`` domains, sorted by address.

    The average of the updates whatever the sizes of the domains; the unweighted case of FedAvg.

    Raises
    ------
    StudyError
        If there is no domain.
    """
    return fedavg(dict.fromkeys(members, 1))


def weights_for(choice: AggregationChoice, examples: Mapping[str, int]) -> dict[str, float]:
    """Return the weights that a plan asks for.

    Parameters
    ----------
    choice : AggregationChoice
        The plan's section.
    examples : mapping of str to int
        Number of examples by the domain's address.

    Raises
    ------
    StudyError
        As :func:`fedavg`.
    """
    weights = fedavg(examples) if choice.weights == "fedavg" else uniform(examples)
    if not math.isclose(sum(weights.values()), 1.0, rel_tol=1e-9):
        raise StudyError("the weights do not sum to 1")
    return weights


def factors(weights: Mapping[str, float]) -> dict[str, float]:
    """Return what each domain multiplies its update with: its weight over the largest one.

    The largest factor is 1, so that an update keeps its own scale before it is clipped and rounded; the sum is divided
    by the sum of the factors when it is opened, which gives the same mean.

    Raises
    ------
    StudyError
        If there is no domain.
    """
    if not weights:
        raise StudyError("there is no domain to weigh")
    largest = max(weights.values())
    return {member: weight / largest for member, weight in weights.items()}


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return how much each update counts in the mean: its weight over the sum of all; what people are shown."""
    total = sum(weights.values())
    return {member: weight / total for member, weight in weights.items()}
