"""Pseudorandom streams, and what is drawn from them: words, uniform and ternary polynomials, noise.

A key has one stream: AES-256 in counter mode over zeros, 4096 words of 64 bits a block, so that any block can be had
without the ones before it.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.keys import KEY_BYTES
from fedpriv.protection.packing import NOISE

_BLOCK_BYTES = WORDS * 8
_SPARE_BLOCKS = 2**40
"""From here on the stream replaces words that are not below a prime."""

_COINS = np.uint64(2**NOISE - 1)
_PAIRS = ((np.arange(256)[:, np.newaxis] >> np.array([0, 2, 4, 6])) & 3).astype(np.uint8).view(np.uint32)[:, 0]
"""The four numbers of two bits in each byte, lowest first, as four bytes."""


class StreamBuffer:
    """Where streams are written, a block at a time; readers that share one stay in the processor's cache.

    Attributes
    ----------
    data : bytearray
        One block, and room for one more AES block, which the library asks for.
    words : ndarray of uint64, shape (4096,)
        The same bytes.
    """

    def __init__(self) -> None:
        self.data = bytearray(_BLOCK_BYTES + 15)
        self.words = np.frombuffer(self.data, np.dtype("<u8"), WORDS)


class StreamReader:
    """Reads a key's stream block by block.

    Parameters
    ----------
    key : bytes
        32 bytes; used for one stream only.
    first : int
        The block to start at; block ``b`` starts at counter ``2048 b``.
    buffer : StreamBuffer, optional
        Shared with other readers; one of its own by default.
    """

    def __init__(self, key: bytes, first: int = 0, buffer: StreamBuffer | None = None) -> None:
        self._buffer = buffer or StreamBuffer()
        counter = (first * (_BLOCK_BYTES // 16)).to_bytes(16, "big")
        self._encrypt = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update_into

    def read(self) -> np.ndarray:
        """Return the next block: uint64, shape (4096,), until the next reader of the same buffer writes over it."""
        self._encrypt(_zeros(), self._buffer.data)
        return self._buffer.words


def stream_words(key: bytes, first: int, blocks: int) -> np.ndarray:
    """Return blocks of the stream of a key.

    Parameters
    ----------
    key : bytes
        32 bytes; used for one stream only.
    first, blocks : int
        Which blocks.

    Returns
    -------
    ndarray of uint64, shape (blocks, 4096)
    """
    out = np.empty((blocks, WORDS), np.uint64)
    reader = StreamReader(key, first)
    for row in out:
        row[:] = reader.read()
    return out


def uniform_polynomials(key: bytes, first: int, blocks: int, prime: int) -> np.ndarray:
    """Return polynomials with coefficients that are uniform below a prime.

    A coefficient is the low bits of a word of the stream. The few that are not below the prime (for ours, one in 2^46
    or fewer) are replaced by the next ones that are in block ``2^40 + b`` of the same stream, then ``2 * 2^40 + b``.

    Parameters
    ----------
    key : bytes
        32 bytes; may be public.
    first, blocks : int
        Which polynomials; each is one block.
    prime : int
        Below 2^63.

    Returns
    -------
    ndarray of uint64, shape (blocks, 4096)
    """
    mask, limit = np.uint64(2 ** prime.bit_length() - 1), np.uint64(prime)
    words = stream_words(key, first, blocks)
    words &= mask

    def spares(block: int) -> Iterator[np.uint64]:
        piece = 0
        while True:
            piece += 1
            more = stream_words(key, piece * _SPARE_BLOCKS + block, 1)[0] & mask
            yield from more[more < limit]

    for index in np.flatnonzero((words >= limit).any(axis=1)).tolist():
        beyond = np.flatnonzero(words[index] >= limit)
        found = spares(first + index)
        words[index, beyond] = [next(found) for _ in beyond]
    return words


def ternary_polynomial(key: bytes) -> np.ndarray:
    """Return a polynomial with coefficients uniform in {-1, 0, 1}: a Ring-LWE secret.

    The first 2048 bytes of the stream are 8192 numbers of two bits, lowest bits first. Those that are 3 are left out;
    the first 4096 of the others, minus 1, are the coefficients. (That there are fewer has a chance below 2^-1900.)

    Parameters
    ----------
    key : bytes
        32 bytes, secret.

    Returns
    -------
    ndarray of int64, shape (4096,)
    """
    data = stream_words(key, 0, 1)[0, : WORDS // 16].astype("<u8").view(np.uint8)
    pairs = _PAIRS[data].view(np.uint8)  # a table is twice as fast as shifts, and a sum of 256 needs 256 of these
    return pairs[pairs < 3][:WORDS].astype(np.int64) - 1


class NoiseSource:
    """Centred binomial noise of 42 coins, as SEAL's, from fresh randomness of the system; nothing repeats it.

    *Guarantee*: variance 10.5 (standard deviation 3.24), magnitude at most :data:`NOISE`, always.
    """

    def __init__(self) -> None:
        self._reader = StreamReader(secrets.token_bytes(KEY_BYTES))

    def polynomials(self, blocks: int) -> np.ndarray:
        """Return new noise: int64, shape (blocks, 4096)."""
        noise = np.empty((blocks, WORDS), np.int64)
        for row in noise:
            words = self._reader.read()
            heads = np.bitwise_count(words & _COINS)
            tails = np.bitwise_count((words >> np.uint64(NOISE)) & _COINS)
            np.subtract(heads, tails, out=row, dtype=np.int64)
        return noise


@functools.lru_cache(maxsize=1)
def _zeros() -> bytes:
    return bytes(_BLOCK_BYTES)
