"""The aggregator's side: weights, links, and rounds of sealed updates. Holds no key."""

from fedpriv.aggregation.links import Link, balanced_steps, relative_bandwidths
from fedpriv.aggregation.rounds import aggregate_round, verify_round
from fedpriv.aggregation.weights import (
    MemberFacts,
    WeightFunction,
    factors,
    fedavg,
    inverse_loss,
    limited,
    paper,
    paper_reciprocal,
    shares,
    uniform,
    weights_for,
)

__all__ = [
    "Link",
    "MemberFacts",
    "WeightFunction",
    "aggregate_round",
    "balanced_steps",
    "factors",
    "fedavg",
    "inverse_loss",
    "limited",
    "paper",
    "paper_reciprocal",
    "relative_bandwidths",
    "shares",
    "uniform",
    "verify_round",
    "weights_for",
]
