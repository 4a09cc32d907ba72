from __future__ import annotations

import random

import numpy as np
import pytest

from fedpriv.protection.bitplanes import WORDS, pack_words, packed_bytes, unpack_words


def words_of(bits: int, blocks: int = 2) -> np.ndarray:
    draw = random.Random(bits)
    rows = [[draw.getrandbits(bits) for _ in range(WORDS)] for _ in range(blocks)]
    rows[0][:3] = [0, 2**bits - 1, 1]
    return np.array(rows, np.uint64)


def documented_bytes(block: list[int], bits: int) -> bytes:
    """Pack one block as the module's first paragraph says, with Python's integers."""
    packed, shift = b"", 0
    for width in (32, 16, 8):
        while bits - shift >= width:
            packed += b"".join(((word >> shift) % 2**width).to_bytes(width // 8, "little") for word in block)
            shift += width
    for bit in range(shift, bits):
        text = "".join(str(word >> bit & 1) for word in block)
        packed += int(text, 2).to_bytes(WORDS // 8, "big")
    return packed


@pytest.mark.parametrize("bits", [1, 7, 8, 15, 24, 31, 32, 39, 47, 51, 56, 60, 63, 64])
def test_bytes_are_as_documented_and_unpack_to_the_same_words(bits):
    words = words_of(bits)
    rows = pack_words(words, bits)
    assert rows.shape == (2, packed_bytes(bits)) == (2, 512 * bits)
    assert [row.tobytes() for row in rows] == [documented_bytes(block, bits) for block in words.tolist()]
    np.testing.assert_array_equal(unpack_words(rows, bits), words)


def test_every_width_comes_back_and_higher_bits_are_lost():
    for bits in range(1, 65):
        words = words_of(64, blocks=1)
        kept = words & np.uint64(2**bits - 1)
        np.testing.assert_array_equal(unpack_words(pack_words(words, bits), bits), kept)


@pytest.mark.parametrize("bits", [0, 65])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(ValueError, match="cannot be packed"):
        pack_words(words_of(8), bits)
    with pytest.raises(ValueError, match="cannot be packed"):
        unpack_words(np.zeros((1, 512), np.uint8), bits)
