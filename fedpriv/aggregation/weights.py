"""How much each domain's update counts in the sum. All weights are in (0, 1] and sum to 1."""

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
