"""Between quantised values and the words that are masked and encrypted: planned once, exact always.

A value becomes one of ``2 h + 1`` levels, ``h = 2^(bits - 1) - 1``, as a digit in ``0 .. 2 h``. The digits of ``K``
updates sum to at most ``2 h K``, so digits in radix ``R = 2 h K + 1`` never carry, and ``v`` of them share one word
below ``2^m``. A block is 4096 words: values, then the constant 1 that counts updates, then the limbs of the tag.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from fedpriv.errors import ProtectionError, TamperedError
from fedpriv.protection.bitplanes import WORDS
from fedpriv.study.plan import MAX_COHORT
from fedpriv.study.protection_choice import SecurityLevel

PRIMES: dict[SecurityLevel, int] = {"tc192": 1152921504606830593, "tc256": 288230376151130113}
"""``q``: what SEAL's ``CoeffModulus.Create(4096, [60])`` and ``[58]`` give; checked when a context is built."""

NOISE = 21
"""The largest magnitude of SEAL's noise: centred binomial with 42 coins."""

TAG_BITS = 61
_MASKED_BITS = 60
"""Most bits of a word at level ``masked``: below the tag's prime, so that no change of a word is 0 modulo it."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How values become words; the same at every domain of a study. Made by :func:`plan_packing`.

    Attributes
    ----------
    bits : int
        Bits of one quantised value.
    clients : int
        ``K``, how many updates a sum may hold.
    digits : int
        ``v``, values in one word.
    plain_bits : int
        ``m``, bits of one word.
    dropped_bits : int
        ``ell``, the low bits of each ciphertext coefficient that are not sent; 0 without encryption.
    prime : int
        ``q`` of the encryption, or 0 without (level ``masked``).
    """

    bits: int
    clients: int
    digits: int
    plain_bits: int
    dropped_bits: int
    prime: int

    @property
    def half(self) -> int:
        """``h``: the largest integer of a quantised value."""
        return 2 ** (self.bits - 1) - 1

    @property
    def radix(self) -> int:
        """``R``: one more than the largest sum of digits."""
        return 2 * self.half * self.clients + 1

    @property
    def sent_bits(self) -> int:
        """``T``: bits of one word as it is sent."""
        return (self.prime.bit_length() if self.prime else self.plain_bits) - self.dropped_bits

    @property
    def limb_bits(self) -> int:
        """Bits of the tag in one word, with headroom for ``K`` of them."""
        return self.plain_bits - (self.clients - 1).bit_length()

    @property
    def limbs(self) -> int:
        """Words that the tag takes."""
        return -(-TAG_BITS // self.limb_bits)

    @property
    def tagged(self) -> int:
        """Words that the tag covers: those of the values, and the count."""
        return WORDS - self.limbs

    @property
    def value_words(self) -> int:
        """Words of a block that hold values."""
        return self.tagged - 1

    @property
    def width(self) -> int:
        """Values in one block."""
        return self.digits * self.value_words

    def quantise(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """Clip to [-1, 1] and round stochastically: the expectation of the rounded value is the clipped value.

        Parameters
        ----------
        values : ndarray of float32, shape (n,)
            Finite.
        rng : numpy.random.Generator
            For the rounding; nothing secret depends on it.

        Returns
        -------
        digits : ndarray of uint32, shape (n,)
            In ``0 .. 2 h``; ``h`` stands for zero.
        residual : ndarray of float32, shape (n,)
            ``values`` minus what the digits stand for.
        clipped : int
            How many values were beyond 1.
        """
        half = np.float32(self.half)
        levels = values * half
        clipped = int(np.count_nonzero(np.abs(levels) > half))
        np.clip(levels, -half, half, out=levels)
        levels += rng.random(levels.size, dtype=np.float32)
        np.floor(levels, out=levels)
        np.minimum(levels, half, out=levels)  # half + a fraction can round up to half + 1
        residual = values - levels / half
        levels += half
        return levels.astype(np.uint32), residual, clipped

    def pack(self, digits: np.ndarray) -> np.ndarray:
        """Pack digits into the value words of blocks, the first as the lowest; missing digits are 0.

        Parameters
        ----------
        digits : ndarray of uint32, shape (n,)
            Each in ``0 .. 2 h``.

        Returns
        -------
        ndarray of uint64, shape (ceil(n / width), value_words)
            Each below ``2^m``.
        """
        blocks = -(-digits.size // self.width)
        if digits.size < blocks * self.width:
            digits = np.concatenate([digits, np.zeros(blocks * self.width - digits.size, np.uint32)])
        columns = digits.reshape(-1, self.digits)
        words = columns[:, -1].astype(np.uint64)
        for column in range(self.digits - 2, -1, -1):
            words *= np.uint64(self.radix)
            words += columns[:, column]
        return words.reshape(blocks, self.value_words)

    def unpack(self, words: np.ndarray, number: int, clients: int) -> np.ndarray:
        """Return the first ``number`` sums of digits in the value words of a sum of ``clients`` updates.

        Parameters
        ----------
        words : ndarray of uint64, shape (blocks, value_words)
            Each below ``2^m``.
        number : int
            At most ``blocks * width``.
        clients : int
            How many updates are in it.

        Returns
        -------
        ndarray of uint32, shape (number,)
            Each at most ``2 h clients``.

        Raises
        ------
        TamperedError
            If a word is larger than so many updates can give, or unused digits are not 0.
        """
        rest = words.reshape(-1).copy()
        radix = np.uint64(self.radix)
        sums = np.empty((rest.size, self.digits), np.uint32)
        for column in range(self.digits - 1):
            quotient = rest // radix
            sums[:, column] = rest - quotient * radix
            rest = quotient
        if rest.size and int(rest.max()) >= self.radix:
            raise TamperedError("the opened sum is larger than its updates can give", kept="It was not used")
        sums[:, -1] = rest
        flat = sums.reshape(-1)
        if int(flat.max(initial=0)) > 2 * self.half * clients or flat[number:].any():
            raise TamperedError("the opened sum is larger than its updates can give", kept="It was not used")
        return flat[:number]


@functools.lru_cache(maxsize=256)
def plan_packing(*, bits: int, clients: int, security: SecurityLevel | None) -> Packing:
    """Choose ``v``, ``m`` and ``ell`` with the fewest bytes a parameter, so that sums of ``clients`` updates are exact.

    One ciphertext's noise is at most 21, rounding ``q x / 2^m`` adds at most 1/2, and restoring a coefficient whose
    ``ell`` low bits are missing adds at most ``2^(ell-1)``, once for each update and once for the sum. Decryption
    rounds to the right word if all of it stays below half a step:
    ``K (21.5 + 2^(ell-1)) + 2^(ell-1) + 1 < q / 2^(m+1)``, with 1 for the last rounding.

    *Guarantee*: a bound for the worst case, not for an average one: no carry, no wrap, no wrong rounding.

    Parameters
    ----------
    bits : int
        Bits of one quantised value, 2 to 16.
    clients : int
        How many updates a sum may hold, 2 to 256.
    security : {"tc192", "tc256"} or None
        Which prime the encryption has; None for level ``masked``, which has none.

    Raises
    ------
    ProtectionError
        If a number is out of range, or not even one value fits a word.
    """
    if not (2 <= bits <= 16 and 2 <= clients <= MAX_COHORT):
        raise ProtectionError(f"no exact sum of {clients} updates of {bits} bits can be planned")
    prime = PRIMES[security] if security else 0
    radix = 2 * (2 ** (bits - 1) - 1) * clients + 1
    best: Packing | None = None
    for digits in range(1, 61):
        plain_bits = (radix**digits - 1).bit_length()
        dropped = _most_dropped_bits(clients, plain_bits, prime)
        if dropped is None:
            break
        found = Packing(
            bits=bits, clients=clients, digits=digits, plain_bits=plain_bits, dropped_bits=dropped, prime=prime
        )
        fits = found.limb_bits > 0 and found.value_words > 0
        if fits and (best is None or found.sent_bits * best.width < best.sent_bits * found.width):
            best = found
    if best is None:
        raise ProtectionError(
            f"{clients} updates of {bits} bits do not fit one word", todo="use fewer bits or a smaller cohort"
        )
    return best


def exact(packing: Packing) -> bool:
    """Return whether a packing keeps the bound of :func:`plan_packing`; in exact integers, doubled."""
    noise = _doubled_noise(packing.clients, packing.dropped_bits)
    return packing.radix**packing.digits <= 2**packing.plain_bits and noise * 2**packing.plain_bits < packing.prime


def _doubled_noise(clients: int, dropped: int) -> int:
    lost = 2**dropped if dropped else 0  # twice 2^(ell-1)
    return clients * (2 * NOISE + 1 + lost) + lost + 2


def _most_dropped_bits(clients: int, plain_bits: int, prime: int) -> int | None:
    """Return the largest ``ell`` that keeps sums exact, or None if even ``ell = 0`` does not."""
    if not prime:
        return 0 if plain_bits <= _MASKED_BITS else None
    if _doubled_noise(clients, 0) * 2**plain_bits >= prime:
        return None
    dropped = 0
    while _doubled_noise(clients, dropped + 1) * 2**plain_bits < prime:
        dropped += 1
    return dropped
