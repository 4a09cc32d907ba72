"""The aggregator's side: weights, and rounds of sealed updates. Holds no key."""

from fedpriv.aggregation.rounds import aggregate_round, verify_round
from fedpriv.aggregation.weights import factors, fedavg, shares, uniform, weights_for

__all__ = ["aggregate_round", "factors", "fedavg", "shares", "uniform", "verify_round", "weights_for"]
