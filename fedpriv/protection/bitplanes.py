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
    odd: np.ndarray | None = None  # the bits that get planes of their own, in bytes, where it is fast
    lowest = 0
    for start, stop, shift, kind in _planes(bits):
        if kind is not None:
            rows[:, start:stop] = (words >> np.uint64(shift) if shift else words).astype(kind).view(np.uint8)
            continue
        if odd is None:
            odd, lowest = (words >> np.uint64(shift)).astype(np.uint8), shift
        rows[:, start:stop] = np.packbits((odd >> np.uint8(shift - lowest)) & np.uint8(1), axis=1)
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
    words: np.ndarray | None = None
    odd: np.ndarray | None = None
    lowest = bits
    for start, stop, shift, kind in _planes(bits):
        part = np.ascontiguousarray(rows[:, start:stop])
        if kind is None:
            plane = np.unpackbits(part, axis=1)
            lowest = min(lowest, shift)
            odd = plane if odd is None else np.bitwise_or(odd, plane << np.uint8(shift - lowest), out=odd)
        else:
            words = _joined(words, part.view(kind), shift)
    return _joined(words, odd, lowest)


def _joined(words: np.ndarray | None, part: np.ndarray | None, shift: int) -> np.ndarray:
    """Return words with a part of them put in at a bit; either may be missing, not both."""
    if part is None:
        part = np.zeros_like(words)
    wide = part.astype(np.uint64)
    if shift:
        wide <<= np.uint64(shift)
    return wide if words is None else np.bitwise_or(words, wide, out=words)


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
