"""Levels ``sealed`` and ``masked``: quantised, packed, tagged, masked; at ``sealed`` also encrypted with BFV.

A block is 4096 words modulo 2^m: packed values, the constant 1, the limbs of the tag, all under masks. At ``masked``
the words are sent as they are. At ``sealed`` a word is one coefficient of a ciphertext, of which the low ``ell`` bits
are left out: the packing keeps room for what that adds to the noise. The sum is exact and the only thing that opens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedpriv.errors import ContainerError, TamperedError
from fedpriv.protection.bfv import BfvContext, BfvDecryptor, BfvEncryptor, BfvKeys, add_modular
from fedpriv.protection.bitplanes import WORDS, pack_words, packed_bytes, unpack_words
from fedpriv.protection.blocks import SealedRows
from fedpriv.protection.masks import MaskReader, MaskStreams
from fedpriv.protection.packing import Packing
from fedpriv.protection.tags import TAG_PRIME, TagKeys

_REFUSED = "Nothing was added or opened"
_UNUSED = "It was not used"


@dataclass(frozen=True)
class PackedShape:
    """The sizes of blocks of one packing; a sum's row is as large as an update's."""

    packing: Packing

    @property
    def width(self) -> int:
        return self.packing.width

    @property
    def row_bytes(self) -> int:
        return packed_bytes(self.packing.sent_bits)

    def sum_row_bytes(self, clients: int) -> int:
        return self.row_bytes


@dataclass(frozen=True, kw_only=True)
class PackedKeys:
    """The secrets of one group in one round; plain data, so that worker processes can have it.

    Attributes
    ----------
    bfv : BfvKeys or None
        With the secret of the sealer, or of all members of the sum; None at level ``masked``.
    masks : MaskStreams
        What the sealer adds, or what the opener takes off.
    offset : int
        Index of the group's first block in the mask streams, which run on over all groups.
    tags : TagKeys
        With the pad of the sealer, or of all members of the sum.
    """

    bfv: BfvKeys | None
    masks: MaskStreams
    offset: int
    tags: TagKeys


class PackedSealer:
    """Seals blocks of one update.

    *Guarantee*: what it gives is indistinguishable from random to whoever lacks the study key (Ring-LWE; at level
    ``masked`` to whoever lacks the masks), and so is what a key holder decrypts from it.
    *Assumption*: it is used for one update, and each block once.

    Parameters
    ----------
    packing : Packing
        The group's.
    keys : PackedKeys
        The sealer's.
    seed : sequence of int, optional
        For stochastic rounding, to repeat it in tests; of the system by default.
    """

    def __init__(self, packing: Packing, keys: PackedKeys, seed: tuple[int, ...] | None = None) -> None:
        self._packing, self._keys, self._seed = packing, keys, seed
        self._rng = np.random.default_rng()
        self._masks = MaskReader(keys.masks)
        self._encryptor = None
        if keys.bfv is not None:
            self._encryptor = BfvEncryptor(BfvContext(packing.plain_bits, packing.prime), keys.bfv)

    def seal(self, first: int, values: np.ndarray) -> SealedRows:
        """Quantise, pack, tag, mask and encrypt; see :class:`fedpriv.protection.blocks.BlockSealer`."""
        packing = self._packing
        if self._seed is not None:
            self._rng = np.random.default_rng((*self._seed, first))
        words = np.empty((-(-values.size // packing.width), WORDS), np.uint64)
        residual, clipped = np.empty_like(values), 0
        for index, row in enumerate(words):  # one block at a time stays in the processor's cache
            part = slice(index * packing.width, (index + 1) * packing.width)
            digits, residual[part], beyond = packing.quantise(values[part], self._rng)
            row[: packing.value_words] = packing.pack(digits)
            clipped += beyond
        self._tag(first, words)
        words += self._masks.words(self._keys.offset + first, len(words))
        words &= np.uint64(2**packing.plain_bits - 1)
        if self._encryptor is not None:
            words = self._encryptor.encrypt(first, words)
            words >>= np.uint64(packing.dropped_bits)
        return SealedRows(rows=pack_words(words, packing.sent_bits), residual=residual, clipped=clipped)

    def _tag(self, first: int, words: np.ndarray) -> None:
        """Fill in the count and the tag of blocks that hold values."""
        packing = self._packing
        words[:, packing.value_words] = 1
        limb = 2**packing.limb_bits
        for row, tag in zip(words, self._keys.tags.tags(first, words[:, : packing.tagged]), strict=True):
            row[packing.tagged :] = [(tag >> (packing.limb_bits * place)) % limb for place in range(packing.limbs)]


class PackedAdder:
    """Adds blocks with numpy alone: ``c0`` modulo ``q``, or masked words modulo 2^m."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing

    def add(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Add rows; see :class:`fedpriv.protection.blocks.BlockAdder`."""
        packing = self._packing
        total: np.ndarray | None = None
        for rows in parts:
            words = sent_words(packing, rows)
            if total is None:
                total = words
            elif words.shape != total.shape:
                raise ContainerError("the updates have different numbers of blocks", kept=_REFUSED)
            elif packing.prime:
                add_modular(total, words, packing.prime)
            else:
                total += words
        if total is None:
            raise ContainerError("there is no update to add", kept=_REFUSED)
        return pack_words(total >> np.uint64(packing.dropped_bits), packing.sent_bits)  # drops what is beyond 2^m


class PackedOpener:
    """Opens blocks of a sum.

    Parameters
    ----------
    packing : Packing
        The group's.
    keys : PackedKeys
        The masks that are still on the sum, and the pads of all its members.
    clients : int
        How many updates are in the sum.
    """

    def __init__(self, packing: Packing, keys: PackedKeys, clients: int) -> None:
        self._packing, self._keys, self._clients = packing, keys, clients
        self._masks = MaskReader(keys.masks)
        self._decryptor = None
        if keys.bfv is not None:
            self._decryptor = BfvDecryptor(BfvContext(packing.plain_bits, packing.prime), keys.bfv)

    def open(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Open rows; see :class:`fedpriv.protection.blocks.BlockOpener`."""
        sums = self.open_sums(first, rows, number).astype(np.float64)
        return (sums - self._packing.half * self._clients) / self._packing.half

    def open_sums(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Open rows and return the exact sums of the digits; parameters and errors as :meth:`open`.

        Returns
        -------
        ndarray of uint32, shape (number,)
            Each at most ``2 h clients``; ``h clients`` stands for zero.
        """
        packing = self._packing
        words = sent_words(packing, rows)
        if self._decryptor is not None:
            words = self._decryptor.decrypt_sum(first, words)
        words -= self._masks.words(self._keys.offset + first, len(words))
        words &= np.uint64(2**packing.plain_bits - 1)
        if (words[:, packing.value_words] != self._clients).any():
            raise TamperedError("the sum does not hold the updates that its manifest lists", kept=_UNUSED)
        tags = self._keys.tags.tags(first, words[:, : packing.tagged])
        for tag, limbs in zip(tags, words[:, packing.tagged :].tolist(), strict=True):
            if (sum(limb << (packing.limb_bits * place) for place, limb in enumerate(limbs)) - tag) % TAG_PRIME:
                raise TamperedError("the sum is not what its members sealed (its tag is wrong)", kept=_UNUSED)
        return packing.unpack(words[:, : packing.value_words], number, self._clients)


def sent_words(packing: Packing, rows: np.ndarray) -> np.ndarray:
    """Return the words in rows, the bits that were not sent set to their middle.

    Parameters
    ----------
    packing : Packing
        The group's.
    rows : ndarray of uint8, shape (blocks, n)
        Of updates or of sums.

    Returns
    -------
    ndarray of uint64, shape (blocks, 4096)
        Below ``q``, or below 2^m at level ``masked``.

    Raises
    ------
    ContainerError
        If a row has a wrong size, or a coefficient is not below ``q``.
    """
    if rows.ndim != 2 or rows.shape[1] != PackedShape(packing).row_bytes:
        raise ContainerError("a block has a wrong size", kept=_REFUSED)
    words = unpack_words(rows, packing.sent_bits)
    if not packing.prime:
        return words
    if packing.dropped_bits:
        words <<= np.uint64(packing.dropped_bits)
        words += np.uint64(2 ** (packing.dropped_bits - 1))
    if int(words.max(initial=0)) >= packing.prime:
        # The middle of the highest interval may lie above q; an honest coefficient's own value does not.
        lowest = words - np.uint64(2**packing.dropped_bits // 2)
        if int(lowest.max()) >= packing.prime:
            raise ContainerError("a ciphertext has a coefficient out of range", kept=_REFUSED)
        np.minimum(words, np.uint64(packing.prime - 1), out=words)
    return words
