"""Words of 1 to 64 bits to bytes and back, without a wasted bit, at the speed of a copy.

A block of 4096 words of ``bits`` bits becomes ``512 * bits`` bytes: first the lowest 32 bits of every word, then the
next 16, then 8, each as a little-endian array if ``bits`` leaves room for it, then one plane a bit for what remains
(eight words a byte, the first word in the highest bit, as :func:`numpy.packbits` does).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

WORDS = 4096
"""Words in a block."""

_TYPES = ((32, np.dtype("<u4")), (16, np.dtype("<u2")), (8, np.dtype("u1")))


def packed_bytes(bits: int) -> int:
    """Return the bytes of one packed block of words of ``bits`` bits."""
    return WORDS // 8 * bits


def pack_words(words: np.ndarray, bits: int) -> np.ndarray:
    """Pack blocks of words.

    Parameters
    ----------
    words : ndarray of uint64, shape (blocks, 4096)
        Each below ``2^bits``; higher bits are lost.
    bits : int
        1 to 64.

    Returns
    -------
    ndarray of uint8, shape (blocks, 512 * bits)
    """
    rows = np.empty((len(words), packed_bytes(bits)), np.uint8)
    for start, stop, shift, kind in _planes(bits):
        shifted = words >> np.uint64(shift) if shift else words
        if kind is None:
            rows[:, start:stop] = np.packbits((shifted & np.uint64(1)).astype(np.uint8), axis=1)
        else:
            rows[:, start:stop] = shifted.astype(kind).view(np.uint8)
    return rows


def unpack_words(rows: np.ndarray, bits: int) -> np.ndarray:
    """Unpack what :func:`pack_words` packed.

    Parameters
    ----------
    rows : ndarray of uint8, shape (blocks, 512 * bits)
        Packed blocks.
    bits : int
        1 to 64.

    Returns
    -------
    ndarray of uint64, shape (blocks, 4096)
        Each below ``2^bits``.
    """
    words = np.zeros((len(rows), WORDS), np.uint64)
    for start, stop, shift, kind in _planes(bits):
        part = np.ascontiguousarray(rows[:, start:stop])
        values = np.unpackbits(part, axis=1) if kind is None else part.view(kind)
        words |= values.astype(np.uint64) << np.uint64(shift)
    return words


def _planes(bits: int) -> Iterator[tuple[int, int, int, np.dtype | None]]:
    """Yield (first byte, end, lowest bit, type) of each plane; the type is None for a plane of single bits."""
    if not 1 <= bits <= 64:
        raise ValueError(f"words of {bits} bits cannot be packed")
    start, shift = 0, 0
    for width, kind in _TYPES:
        while bits - shift >= width:
            stop = start + WORDS // 8 * width
            yield start, stop, shift, kind
            start, shift = stop, shift + width
    for bit in range(shift, bits):
        yield start, start + WORDS // 8, bit, None
        start += WORDS // 8
