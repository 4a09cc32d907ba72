"""How much each domain's update counts in the sum: the rules of a plan, and the factors that a round is sealed with.

A rule gives each domain of a sum a positive weight ``omega_k``; only their proportions matter, because the sum
``sum_k omega_k d_k`` is divided by ``sum_k omega_k`` when it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedpriv.errors import StudyError
from fedpriv.study.aggregation import AggregationChoice


@dataclass(frozen=True, kw_only=True)
class MemberFacts:
    """What a domain is weighed by. It reports the first two itself: *assumption*, truthfully.

    Attributes
    ----------
    examples : int
        ``|D_k|``, its training examples, at least 1.
    loss : float
        Mean loss (nats a token) of its training in this round, over 0; its held-out loss where the plan lets no
        training loss leave.
    bandwidth : float
        ``B_k``, its measured upload rate over the median of the cohort's, over 0; 1 where none was measured.
    staleness : int
        Rounds between the adapter that it trained from and the newest.
    """

    examples: int
    loss: float
    bandwidth: float = 1.0
    staleness: int = 0

    @property
    def summed_loss(self) -> float:
        """``L_k``: the loss summed over all its examples, estimated from the mean of those that were drawn."""
        return self.loss * self.examples


WeightFunction = Callable[[Mapping[str, MemberFacts]], Mapping[str, float]]
"""A researcher's own rule: facts by address to weights by address, each finite and over 0."""


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


def paper(facts: Mapping[str, MemberFacts], alpha: float) -> dict[str, float]:
    """Return ``omega_k = L_k / (|D_k| B_k^alpha)``.

    Source: arXiv 2503.12226, its dynamic weight. With ``L_k`` the loss summed over the ``|D_k|`` examples, a domain
    counts by its mean loss, hence more while it fits badly, and less the faster its link is; ``alpha = 0`` leaves links
    out of it. The number of examples cancels: a small shard counts as much as a large one with the same mean loss.
    """
    return {
        member: known.summed_loss / (known.examples * known.bandwidth**alpha) for member, known in sorted(facts.items())
    }


def paper_reciprocal(facts: Mapping[str, MemberFacts], alpha: float) -> dict[str, float]:
    """Return ``L_k B_k^alpha / |D_k|``: the rule of :func:`paper` with fast links counting more in place of less."""
    return paper(facts, -alpha)


def inverse_loss(facts: Mapping[str, MemberFacts]) -> dict[str, float]:
    """Return ``|D_k| / L_k``, one over the mean loss: a domain that fits badly, or has noisy notes, counts less."""
    return {member: known.examples / known.summed_loss for member, known in sorted(facts.items())}


def weights_for(
    choice: AggregationChoice,
    facts: Mapping[str, MemberFacts],
    custom: WeightFunction | None = None,
    *,
    discount: Callable[[int], float] = lambda staleness: 1.0,
) -> dict[str, float]:
    """Return the weights that a plan asks for.

    Parameters
    ----------
    choice : AggregationChoice
        The plan's section; ``alpha`` as it is in this round.
    facts : mapping of str to MemberFacts
        By the domain's address.
    custom : WeightFunction, optional
        The researcher's function, where ``choice.weights`` is ``custom``.
    discount : Callable[[int], float]
        What an update counts less for its staleness, whatever the rule.

    Returns
    -------
    dict of str to float
        Sorted by address; they sum to 1 and none is over ``choice.largest_share``, unless there are too few domains.

    Raises
    ------
    StudyError
        If there is no domain, a fact or a weight is no finite number over 0, or the function is missing or fails.
    """
    for member, known in facts.items():
        if not 0 < known.loss < math.inf or not 0 < known.bandwidth < math.inf:
            raise StudyError(f"{member} has no loss or bandwidth to weigh it by", kept="Nothing was added")
    match choice.weights:
        case "fedavg":
            weights = fedavg({member: known.examples for member, known in facts.items()})
        case "uniform":
            weights = uniform(facts)
        case "paper":
            weights = paper(facts, choice.alpha)
        case "paper-reciprocal":
            weights = paper_reciprocal(facts, choice.alpha)
        case "inverse-loss":
            weights = inverse_loss(facts)
        case "custom":
            weights = _custom(facts, custom)
    stale = {member: weight * discount(facts[member].staleness) for member, weight in weights.items()}
    return limited(shares(stale), choice.largest_share)


def limited(weights: Mapping[str, float], largest: float) -> dict[str, float]:
    """Return shares of which none is over ``largest``: what is cut off goes to the others in proportion.

    Parameters
    ----------
    weights : mapping of str to float
        Shares that sum to 1.
    largest : float
        At least ``1 / K`` is used, below which nothing could sum to 1.
    """
    limit = max(largest, 1 / len(weights))
    capped: set[str] = set()
    while True:
        free = {member: weight for member, weight in weights.items() if member not in capped}
        left, total = 1 - limit * len(capped), sum(free.values())
        scaled = {member: weight / total * left for member, weight in free.items()} if free else {}
        over = {member for member, weight in scaled.items() if weight > limit * (1 + 1e-12)}
        if not over:
            return {member: scaled.get(member, limit) for member in sorted(weights)}
        capped |= over


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
    """Return how much each update counts in the mean: its weight over the sum of all; what people are shown.

    Raises
    ------
    StudyError
        If there is no domain.
    """
    if not weights:
        raise StudyError("there is no domain to weigh")
    total = sum(weights.values())
    return {member: weight / total for member, weight in weights.items()}


def _custom(facts: Mapping[str, MemberFacts], function: WeightFunction | None) -> dict[str, float]:
    if function is None:
        raise StudyError(
            "The plan's weights are custom, and no function was given",
            kept="Nothing was added",
            todo="call study.run(weights=FUNCTION) from Python",
        )
    try:
        given = {str(member): float(weight) for member, weight in function(dict(facts)).items()}
    except Exception as error:  # it is the researcher's own code, which may do anything
        raise StudyError(f"The function of weights failed ({error!r})", kept="Nothing was added") from error
    if set(given) != set(facts) or not all(0 < weight < math.inf for weight in given.values()):
        raise StudyError(
            "The function of weights did not give every domain of the sum one finite weight over 0",
            kept="Nothing was added",
        )
    return dict(sorted(given.items()))
