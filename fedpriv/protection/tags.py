"""A homomorphic message authentication code: the tag of a sum is the sum of the tags, and nobody else can make one.

Each block of an update carries ``tag_k = Σ_i r_i s_ki + pad_k  (mod p)``, ``p = 2^61 - 1``, over its words ``s_ki``
before masking, with ``r_i`` and the member's ``pad_k`` pseudorandom and fresh for each study key, round, attempt and
block, the pad also for each sealing. The sum over a set of members is right only if the sum's tag is
``Σ_i r_i Σ_k s_ki + Σ_k pad_k``: a change of any word is found but for one chance in 2^61 (a linear universal hash,
Carter and Wegman 1981), and the pads tie the tag to exactly the members in the set (Agrawal and Boneh 2009,
*Homomorphic MACs*, for one linear combination).

*Assumption*: the key is known to the domains only. A domain that colludes with the aggregator can forge tags; it could
as well seal a wrong update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.files import canonical_json
from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.headers import shared_facts
from fedpriv.protection.keys import KEY_BYTES, derive
from fedpriv.protection.streams import stream_words
from fedpriv.study.messages import UpdateHeader

TAG_PRIME = 2**61 - 1
_LIMB = 20
_HALF = 31


@dataclass(frozen=True)
class TagKeys:
    """What the tags of one sum are made from; plain data, so that worker processes can have it.

    Attributes
    ----------
    factors : bytes
        Key of the stream of ``r_i``.
    pads : tuple of bytes
        For each member, the key of its pads.
    """

    factors: bytes = field(repr=False)
    pads: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, headers: Sequence[UpdateHeader], group: int) -> TagKeys:
        """Derive the keys for one group of parameters in one round.

        Parameters
        ----------
        secret : bytes
            The tag secret of the study key, 32 bytes.
        headers : sequence of UpdateHeader
            The sealer's alone, or those of all updates in the sum, which are alike.
        group : int
            Index of the group.
        """
        facts = shared_facts(headers[0])
        owners = [canonical_json([facts, group, header.member, header.nonce]) for header in headers]
        return cls(
            factors=derive(secret, b"fedpriv 2 tag factors\n" + canonical_json([facts, group]), KEY_BYTES),
            pads=tuple(derive(secret, b"fedpriv 3 tag pad\n" + owner, KEY_BYTES) for owner in owners),
        )

    def tags(self, first: int, words: np.ndarray) -> list[int]:
        """Return the tag of each block, or of the sum of blocks of as many members as there are pads.

        Parameters
        ----------
        first : int
            Index of the first block in its group.
        words : ndarray of uint64, shape (blocks, n)
            ``n`` at most 4096; each below 2^60.

        Returns
        -------
        list of int
            Each below ``p``.
        """
        factors = stream_words(self.factors, first, len(words))[:, : words.shape[1]] & np.uint64(TAG_PRIME)
        totals = _dot(factors, words)
        for pad in self.pads:
            counter = first.to_bytes(16, "big")
            stream = Cipher(algorithms.AES(pad), modes.CTR(counter)).encryptor().update(bytes(16 * len(words)))
            for index in range(len(words)):
                totals[index] += int.from_bytes(stream[16 * index : 16 * index + 16], "little")
        return [total % TAG_PRIME for total in totals]


def _dot(factors: np.ndarray, words: np.ndarray) -> list[int]:
    """Return ``Σ_i factors_i words_i`` of each row, exactly.

    Factors are below 2^61 and words below 2^60; in pieces of 31 and 20 bits, 4096 products of 51 bits sum to 63 bits.
    """
    if words.shape[1] > WORDS:
        raise ValueError("a block has at most 4096 words")
    halves = [factors & np.uint64(2**_HALF - 1), factors >> np.uint64(_HALF)]
    limbs = [(words >> np.uint64(_LIMB * place)) & np.uint64(2**_LIMB - 1) for place in range(3)]
    totals = [0] * len(words)
    for high, half in enumerate(halves):
        for place, limb in enumerate(limbs):
            sums = np.einsum("ni,ni->n", half, limb)
            for index, value in enumerate(sums.tolist()):
                totals[index] += value << (_HALF * high + _LIMB * place)
    return totals
