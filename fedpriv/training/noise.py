"""Random numbers that nobody can predict: the noise and the draws of differential privacy.

Whoever can predict the noise can take it off. The plan's seed is known to the researcher, and generators made for
simulations (numpy's, torch's) can be computed backwards from what they gave. So the numbers here are the key stream of
ChaCha20 (RFC 8439), with a key from the operating system that is used for one call and forgotten. There is no seed to
set, on purpose.

*Assumption*: float64 stands for real numbers. Mironov (2012, "On significance of the least significant bits for
differential privacy") showed that the gaps between floating-point numbers can give noise away where the exact noisy sum
is handed over. Here it never is: it goes through an optimiser in float32 and leaves rounded to a grid of 4 to 16 bits
(levels ``sealed`` and ``masked``). At the levels that do not round (``ckks`` approximately, ``plain``) this defence is
weaker.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_BITS = 53
"""Random bits of one float64 in [0, 1): all that it can hold evenly spaced."""


def _words(count: int) -> NDArray[np.uint64]:
    """Return ``count`` uniform 64-bit words; one call has one fresh key, of which 2^32 blocks of 64 bytes are good."""
    key, nonce = os.urandom(32), os.urandom(12)
    cipher = Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), mode=None)  # the first 4 bytes are the block counter
    return np.frombuffer(cipher.encryptor().update(bytes(8 * count)), "<u8")


def uniform(count: int) -> Float64:
    """Return ``count`` independent numbers, shape (count,), uniform on the multiples of 2^-53 in [0, 1)."""
    return (_words(count) >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS


def gaussian(count: int) -> Float64:
    """Return ``count`` independent standard normal numbers, shape (count,).

    Box and Muller (1958): ``sqrt(-2 ln u) * (cos, sin)(2 pi v)`` with ``u`` in (0, 1] and ``v`` in [0, 1).

    *Guarantee*: unpredictable to whoever cannot break ChaCha20 or read this process's memory.
    *Assumption*: with 53 bits, no number is beyond 8.57; a true normal is with a probability of 1e-17.
    """
    half = (count + 1) // 2
    drawn = uniform(2 * half)
    radius = np.sqrt(-2.0 * np.log(drawn[:half] + 2.0**-_BITS))
    angle = 2.0 * np.pi * drawn[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def sampled(count: int, probability: float) -> NDArray[np.intp]:
    """Return which of ``count`` things are drawn when each is drawn for itself with ``probability`` (Poisson sampling).

    Returns
    -------
    ndarray of int
        Ascending indices, none of them twice; possibly none at all.
    """
    return np.flatnonzero(uniform(count) < probability)


def chosen(count: int, most: int) -> NDArray[np.intp]:
    """Return ``most`` of ``count`` things, every set of them equally likely; all of them if there are not more.

    Returns
    -------
    ndarray of int
        Ascending indices.
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.argsort(uniform(count), kind="stable")[:most])
