"""The server optimiser, which every domain runs for itself: how the mean update of a round moves the adapter.

Nobody but the domains opens the mean, so there is no server that could. Each computes the same: element by element,
in float64, with operations that IEEE 754 rounds correctly (add, subtract, multiply, divide, square root), in one order.
So all domains get the same bits, on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpriv.study.averaging import ServerChoice
from fedpriv.training.adapter import AdapterState, Float32

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ServerState:
    """What the optimiser keeps between rounds, by the name of the tensor; nothing of one that was not sent yet.

    Attributes
    ----------
    mean : dict of str to ndarray of float64
        ``m``: the mean updates so far, older ones counting less. In units of a parameter.
    square : dict of str to ndarray of float64
        ``v``: the same of their squares (adam).
    """

    mean: Mapping[str, Float64] = field(default_factory=dict)
    square: Mapping[str, Float64] = field(default_factory=dict)


def server_step(
    choice: ServerChoice, rate: float, before: Mapping[str, Float32], update: Mapping[str, Float64], state: ServerState
) -> tuple[AdapterState, ServerState]:
    """Move an adapter by the mean update of a round.

    With ``d`` the mean update, ``x`` the parameters and ``eta`` the rate:

    - ``none``: ``x + d``
    - ``momentum``: ``m = beta1 m + d``, then ``x + eta m`` (Hsu et al. 2019, arXiv 1909.06335)
    - ``adam``: ``m = beta1 m + (1 - beta1) d`` and ``v = beta2 v + (1 - beta2) d^2``, then
      ``x + eta m / (sqrt(v) + tau)``; ``m`` begins at 0 and ``v`` at ``tau^2`` (Reddi et al. 2021, arXiv 2003.00295,
      algorithm 2, FedAdam: without bias correction)

    *Guarantee*: a tensor that is not in ``update``, and what is kept about it, stay as they are, to the bit.

    Parameters
    ----------
    choice : ServerChoice
        The plan's section.
    rate : float
        ``eta``; see :attr:`fedpriv.study.plan.Plan.server_rate`.
    before : mapping of str to ndarray of float32
        The adapter that the round started from.
    update : mapping of str to ndarray of float64
        The mean update, for the tensors that the round sent; in their shapes.
    state : ServerState
        After the round before.

    Returns
    -------
    tuple of dict and ServerState
        The adapter after the round, and what is kept for the next one.
    """
    after, mean, square = dict(before), dict(state.mean), dict(state.square)
    for name, change in update.items():
        step = change
        if choice.optimizer == "momentum":
            mean[name] = choice.beta1 * mean.get(name, np.zeros_like(change)) + change
            step = rate * mean[name]
        elif choice.optimizer == "adam":
            mean[name] = choice.beta1 * mean.get(name, np.zeros_like(change)) + (1 - choice.beta1) * change
            first = np.full_like(change, choice.tau * choice.tau)
            square[name] = choice.beta2 * square.get(name, first) + (1 - choice.beta2) * (change * change)
            step = rate * mean[name] / (np.sqrt(square[name]) + choice.tau)
        after[name] = (before[name] + step).astype(np.float32)
    return after, ServerState(mean, square)
