"""Between an update's values and the coefficients that are encrypted: quantise, pack, and back. Exact integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.protection.bfv import largest_plain_bits


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How values become integers; the same at every domain of a study. Made by :func:`plan_codec`.

    A value becomes one of ``2 h + 1`` levels, ``h = 2^(bits - 1) - 1``, as a digit in ``0 .. 2 h``; ``K`` digits sum to
    at most ``2 h K``, so digits in radix ``R = 2 h K + 1`` never carry, and ``v`` of them fit one coefficient below
    ``2^m``.

    Attributes
    ----------
    bits : int
        Bits of one quantised value.
    clip : float
        Largest magnitude; larger values are cut, and the rest stays in the residual.
    clients : int
        ``K``, how many updates a sum may hold.
    digits : int
        ``v``, values in one coefficient.
    plain_bits : int
        ``m``, bits of one coefficient.
    """

    bits: int
    clip: float
    clients: int
    digits: int
    plain_bits: int

    @property
    def half(self) -> int:
        """``h``: the largest integer of a quantised value."""
        return 2 ** (self.bits - 1) - 1

    @property
    def radix(self) -> int:
        """``R``: one more than the largest sum of digits."""
        return 2 * self.half * self.clients + 1

    @property
    def step(self) -> float:
        """The difference between two neighbouring levels, in the unit of the values."""
        return self.clip / self.half

    def quantise(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """Clip and round stochastically, so that the expectation of the rounded value is the clipped value.

        Parameters
        ----------
        values : ndarray of float32, shape (n,)
            Finite.
        rng : numpy.random.Generator
            For the rounding; nothing secret depends on it.

        Returns
        -------
        digits : ndarray of uint64, shape (n,)
            In ``0 .. 2 h``; ``h`` stands for zero.
        residual : ndarray of float32, shape (n,)
            ``values`` minus what the digits stand for.
        clipped : int
            How many values were beyond the clip.
        """
        wide = values.astype(np.float64)
        scaled = np.clip(wide, -self.clip, self.clip) / self.step
        levels = np.floor(scaled + rng.random(scaled.size))
        np.clip(levels, -self.half, self.half, out=levels)
        residual = (wide - levels * self.step).astype(np.float32)
        clipped = int(np.count_nonzero(np.abs(wide) > self.clip))
        return (levels + self.half).astype(np.uint64), residual, clipped

    def pack(self, digits: np.ndarray) -> np.ndarray:
        """Pack ``v`` digits into each coefficient, the first as the lowest; missing digits are 0.

        Parameters
        ----------
        digits : ndarray of uint64, shape (n,)
            Each in ``0 .. 2 h``.

        Returns
        -------
        ndarray of uint64, shape (ceil(n / v),)
            Each below ``2^m``.
        """
        rows = -(-digits.size // self.digits)
        padded = np.zeros((rows, self.digits), np.uint64)
        padded.reshape(-1)[: digits.size] = digits
        packed = padded[:, -1].copy()
        for column in range(self.digits - 2, -1, -1):
            packed *= np.uint64(self.radix)
            packed += padded[:, column]
        return packed

    def unpack(self, coefficients: np.ndarray, number: int) -> np.ndarray:
        """Return the first ``number`` digits (sums of digits) in ``coefficients``.

        Parameters
        ----------
        coefficients : ndarray of uint64, shape (c,)
            Each below ``2^m``.
        number : int
            At most ``c v``.

        Returns
        -------
        ndarray of uint64, shape (number,)

        Raises
        ------
        ProtectionError
            If a coefficient is larger than any sum of so many clients can be.
        """
        rest = coefficients.copy()
        sums = np.empty((rest.size, self.digits), np.uint64)
        for column in range(self.digits):
            rest, sums[:, column] = np.divmod(rest, np.uint64(self.radix))
        if rest.any():
            raise ProtectionError("the opened sum is larger than the sum of all clients can be", kept="It was not used")
        return sums.reshape(-1)[:number]

    def dequantise(self, sums: np.ndarray, clients: int) -> np.ndarray:
        """Return the values that sums of ``clients`` digits stand for.

        Parameters
        ----------
        sums : ndarray of uint64, shape (n,)
            Each at most ``2 h clients``.
        clients : int
            How many updates are in them.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        ProtectionError
            If a sum is larger than so many updates can give.
        """
        if sums.size and int(sums.max()) > 2 * self.half * clients:
            raise ProtectionError("the opened sum is larger than its updates can give", kept="It was not used")
        return (sums.astype(np.float64) - self.half * clients) * self.step


def plan_codec(*, bits: int, clip: float, clients: int) -> Codec:
    """Choose how many values share a coefficient, so that sums of ``clients`` updates are exact.

    *Guarantee*: no carry between digits, no wrap at ``2^m``, and decryption noise below its bound
    (:func:`fedpriv.protection.bfv.largest_plain_bits`): the opened sum is the exact sum of the digits.

    Parameters
    ----------
    bits : int
        Bits of one quantised value, 8 to 16.
    clip : float
        Largest magnitude, above 0.
    clients : int
        How many updates a sum may hold, 2 to 64.

    Raises
    ------
    ProtectionError
        If a number is out of range, or not even one value fits a coefficient.
    """
    if not (2 <= bits <= 16 and 2 <= clients <= 64 and 0 < clip < float("inf")):
        raise ProtectionError(f"no exact sum of {clients} updates of {bits} bits with clip {clip} can be planned")
    most = largest_plain_bits(clients)
    radix = 2 * (2 ** (bits - 1) - 1) * clients + 1
    digits = 0
    while radix ** (digits + 1) <= 2**most:
        digits += 1
    if digits == 0:
        what = f"{clients} updates of {bits} bits do not fit one coefficient of {most} bits"
        raise ProtectionError(what, todo="use fewer bits or a smaller cohort")
    plain_bits = (radix**digits - 1).bit_length()
    return Codec(bits=bits, clip=clip, clients=clients, digits=digits, plain_bits=plain_bits)
