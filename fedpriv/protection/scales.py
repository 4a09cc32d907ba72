"""The scale of each tensor: the largest change of a parameter that is sent; known to all members without talking.

In the first round it comes from the plan. Later each domain computes it from the sums that it opened, in exact integer
arithmetic, so that all have the same bits; the header of each update carries its digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fedpriv.files import canonical_json, sha256_hex

Scales = tuple[float, ...]
"""One for each tensor, in the sorted order of their names; in units of a parameter."""

_STEP = 4.0
"""A scale grows and shrinks at most so much from round to round: one odd round does not spoil the next."""

_SMALLEST = 1e-9
"""Below it a change of a parameter is nothing to float32 weights."""

_FIXED_POINT = 16
"""Bits after the point when squares are summed as integers."""


def first_scales(clip: float, tensors: Mapping[str, int]) -> Scales:
    """Return the scales of the first round: ``clip`` for every tensor."""
    return (clip,) * len(tensors)


def scales_digest(scales: Scales) -> str:
    """Return the SHA-256 (hex) of scales; equal only for equal bits."""
    return sha256_hex(b"fedpriv 2 scales\n" + canonical_json([scale.hex() for scale in scales]))


def deviations(bits: int) -> float:
    """Return how many standard deviations the clip should be away for ``bits`` bits: ``1 + bits / 3``.

    A straight line near the clips with the least mean squared error for normally distributed values and stochastic
    rounding: 2.3 at 4 bits, 3.8 at 8, 4.3 at 10 (computed in ``tests/protection/test_scales.py``). Above 10 bits it
    lies higher, where a clip too many costs more than a step too coarse.
    """
    return 1 + bits / 3


def energy(sums: np.ndarray) -> int:
    """Return the sum of squares of ``sums`` (float64, in units of a scale) as an exact integer, times 2^32.

    The same bits at every domain: rounding to fixed point is exact IEEE arithmetic, and integers add in any order.
    """
    fixed = np.rint(sums * 2.0**_FIXED_POINT).astype(np.int64)  # at most 256 * 2^16 = 2^24: 2^14 squares fit 63 bits
    return sum(int(np.dot(part, part)) for part in np.array_split(fixed, -(-fixed.size // 2**14) or 1))


def next_scale(scale: float, *, energy: int, size: int, total_weight: float, clients: int, bits: int) -> float:
    """Return a tensor's scale for the next round, from the sum that was opened in this one.

    The mean update has a root mean square of ``scale sqrt(energy / size) / total_weight``. One member's update has
    between once (all alike) and ``sqrt(K)`` times that (independent); ``K^(1/4)`` is the middle. What a scale that is
    too small cuts off stays in the residual and comes later.

    Parameters
    ----------
    scale : float
        This round's.
    energy : int
        Of the tensor's opened sum (:func:`energy`).
    size : int
        Parameters of the tensor.
    total_weight : float
        Sum of the members' weights.
    clients : int
        Members of the sum.
    bits : int
        Bits of a quantised value.

    Returns
    -------
    float
        Between a quarter and four times this round's.
    """
    mean = scale * math.sqrt(energy / 4**_FIXED_POINT / size) / total_weight
    wanted = mean * math.sqrt(math.sqrt(clients)) * deviations(bits)
    return max(_SMALLEST, min(scale * _STEP, max(wanted, scale / _STEP)))
