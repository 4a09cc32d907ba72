"""The aggregator's side: weights, and rounds of sealed updates. Holds no key."""

from fedpriv.aggregation.rounds import aggregate_round
from fedpriv.aggregation.weights import fedavg, uniform, weights_for

__all__ = ["aggregate_round", "fedavg", "uniform", "weights_for"]
