"""BFV over the integers modulo 2^m with values in the coefficients, on SEAL (through ``tenseal.sealapi``).

Fan and Vercauteren 2012 (IACR 2012/144), N = 4096 and one prime, no batching, no evaluation keys: sums need neither.
Two things are not as in the textbook, because here many members encrypt for one sum and the same members open it:

**The second polynomial is common.** In every block of a sum all members use the same public uniform ``a``, expanded
from what the headers of the sum share (a common reference string, as in multiparty BFV, Mouchet et al. 2021, IACR
2020/304). A ciphertext is then ``c0 = round(q x / 2^m) + e - a s`` alone: nothing is sent beside it, sums of ``c0`` are
plain modular additions without SEAL, and opening a sum costs the same for any number of members.

**Every sealing has a secret of its own.** ``s`` is ternary, derived from the study key and the header of one update,
its nonce included. The sum opens with ``S = Σ_k s_k``, which every holder of the study key can derive, since
``Σ_k c0_k + a S = Σ_k (round(q x_k / 2^m) + e_k)``. No secret meets the same ``a`` twice, and ``S`` opens one sum only:
an answer about it, such as the one to the ciphertext (0, floor(q/t)), tells nothing about any other sum.

Security is that of Ring-LWE with ternary secrets, whose instances share ``a`` and have independent secrets (by a hybrid
argument over the members); the functions that derive ``a`` and ``s`` are taken for random. SEAL accepts the prime of 60
bits at 192 bits of classical security and that of 58 bits at 256 (Homomorphic Encryption Standard, ternary secret), and
checks it whenever a context is built. SEAL multiplies and decrypts; ``round``, ``e`` and the sum are ours.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.headers import shared_facts
from fedpriv.protection.keys import KEY_BYTES, derive
from fedpriv.protection.packing import PRIMES
from fedpriv.protection.seal_streams import Bridge, foreign_seal, raw_head, stream_body, with_head
from fedpriv.protection.streams import NoiseSource, ternary_polynomial, uniform_polynomials
from fedpriv.study.messages import UpdateHeader

DEGREE = WORDS

_WORDS = np.dtype("<u8")
_SPLIT_BITS = 26
"""Words are multiplied with ``2^B - q`` in two parts, so that nothing passes 64 bits."""


def add_modular(total: np.ndarray, part: np.ndarray, prime: int) -> None:
    """Add ``part`` to ``total`` modulo ``prime``, in place; both uint64 and below it (below 2^60, so nothing wraps)."""
    total += part
    np.minimum(total, total - np.uint64(prime), out=total)


@dataclass(frozen=True)
class BfvKeys:
    """What one group of a sum is encrypted or opened with; plain data, so that worker processes can have it.

    Attributes
    ----------
    common : bytes
        Public: the key of the stream of ``a``.
    secrets : tuple of bytes
        For each member, the key of the stream of its ``s``.
    """

    common: bytes
    secrets: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, headers: Sequence[UpdateHeader], group: int) -> BfvKeys:
        """Derive the keys for one group of parameters in one round.

        Parameters
        ----------
        secret : bytes
            The group's secret in the study key, 32 bytes.
        headers : sequence of UpdateHeader
            The sealer's alone, or those of all updates in the sum, which are alike.
        group : int
            Index of the group.

        Raises
        ------
        UntrustedError
            If the secret has another length.
        """
        if len(secret) != KEY_BYTES:
            raise UntrustedError("the study key's secret is not 32 bytes", kept="It was not used")
        facts = shared_facts(headers[0])
        owners = [canonical_json([facts, group, header.member, header.nonce]) for header in headers]
        return cls(
            common=hashlib.sha256(b"fedpriv 3 common polynomial\n" + canonical_json([facts, group])).digest(),
            secrets=tuple(derive(secret, b"fedpriv 3 one-time secret\n" + owner, KEY_BYTES) for owner in owners),
        )

    def secret_sum(self) -> np.ndarray:
        """Return ``S``, or ``s`` of a sealer: int64, shape (4096,), in magnitude at most the number of secrets."""
        return np.sum([ternary_polynomial(secret) for secret in self.secrets], axis=0)


class BfvContext:
    """SEAL's context for one prime and one plain modulus; shared by encryption and decryption.

    Parameters
    ----------
    plain_bits : int
        ``m``; the plain modulus is ``2^m``.
    prime : int
        ``q``, one of :data:`fedpriv.protection.packing.PRIMES`.

    Raises
    ------
    ProtectionError
        If SEAL refuses the parameters.
    """

    def __init__(self, plain_bits: int, prime: int) -> None:
        from tenseal import sealapi

        self.seal = _seal_context(plain_bits, prime)
        self.plain_bits = plain_bits
        self.prime = prime
        self.bridge = Bridge()
        self.evaluator = sealapi.Evaluator(self.seal)
        identifier = struct.pack("<4Q", *self.seal.first_parms_id())
        self._plain_head = bytes(32) + struct.pack("<Qd", DEGREE, 1.0) + raw_head(8 + 8 * DEGREE)
        self._plain_head += struct.pack("<Q", DEGREE)
        self._pair_head = identifier + struct.pack("<BQQQdQ", 0, 2, DEGREE, 1, 1.0, 1) + raw_head(8 + 16 * DEGREE)
        self._pair_head += struct.pack("<Q", 2 * DEGREE)

    def transformed(self, polynomial: np.ndarray) -> Any:
        """Return SEAL's plaintext of a polynomial with small coefficients (int64), in the form that multiplies fast."""
        from tenseal import sealapi

        plain = sealapi.Plaintext()
        words = (polynomial % 2**self.plain_bits).astype(_WORDS)
        self.bridge.load(plain, self.seal, with_head(self._plain_head + words.tobytes()))
        self.evaluator.transform_to_ntt_inplace(plain, self.seal.first_parms_id())
        return plain

    def words(self, plain: Any) -> np.ndarray:
        """Return the coefficients (uint64, shape (4096,)) of SEAL's plaintext.

        Raises
        ------
        ProtectionError
            If SEAL wrote another form than the one known here.
        """
        body = stream_body(self.bridge.saved(plain))
        count = plain.coeff_count()
        start = len(body) - 8 * count
        if count > DEGREE or start != len(self._plain_head) or body[:32] != bytes(32):
            raise foreign_seal()
        words = np.zeros(DEGREE, np.uint64)
        words[:count] = np.frombuffer(body, _WORDS, count, start)
        return words

    def pair(self, first: np.ndarray, second: np.ndarray) -> Any:
        """Return SEAL's ciphertext of two polynomials (uint64, shape (4096,), below q).

        Raises
        ------
        ContainerError
            If they are no ciphertext of this context.
        """
        from tenseal import sealapi

        cipher = sealapi.Ciphertext()
        body = self._pair_head + first.astype(_WORDS).tobytes() + second.astype(_WORDS).tobytes()
        try:
            self.bridge.load(cipher, self.seal, with_head(body))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ContainerError(f"a ciphertext cannot be read ({error})", kept="Nothing was opened") from error
        return cipher

    def polynomials(self, cipher: Any) -> np.ndarray:
        """Return the two polynomials (uint64, shape (2, 4096)) of SEAL's ciphertext; the inverse of :meth:`pair`.

        Raises
        ------
        ProtectionError
            If SEAL wrote another form than the one known here.
        """
        body = stream_body(self.bridge.saved(cipher))
        if len(body) != len(self._pair_head) + 16 * DEGREE or not body.startswith(self._pair_head):
            raise foreign_seal()
        return np.frombuffer(body, _WORDS, 2 * DEGREE, len(self._pair_head)).astype(np.uint64).reshape(2, DEGREE)

    def scaled(self, words: np.ndarray) -> np.ndarray:
        """Return ``round(q x / 2^m)``, halves up, exactly: uint64, at most q.

        With ``q = 2^B - d`` that is ``2^(B-m) x - floor((d x + 2^(m-1) - 1) / 2^m)``.

        Parameters
        ----------
        words : ndarray of uint64
            ``x``, each below ``2^m``.
        """
        full, bits = self.prime.bit_length(), self.plain_bits
        short, low = np.uint64(2**full - self.prime), min(_SPLIT_BITS, bits)
        rest = short * (words & np.uint64(2**low - 1))
        rest += np.uint64(2 ** (bits - 1) - 1)
        rest >>= np.uint64(low)
        rest += short * (words >> np.uint64(low))  # floor of floors: the same
        rest >>= np.uint64(bits - low)
        return (words << np.uint64(full - bits)) - rest


@functools.lru_cache(maxsize=8)
def _seal_context(plain_bits: int, prime: int) -> Any:
    """Return SEAL's own context, which does not change; making one takes as long as encrypting a block."""
    from tenseal import sealapi

    level = {"tc192": sealapi.SEC_LEVEL_TYPE.TC192, "tc256": sealapi.SEC_LEVEL_TYPE.TC256}
    security = next(name for name, known in PRIMES.items() if known == prime)
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [prime.bit_length()]))
    parameters.set_plain_modulus(2**plain_bits)
    primes = [modulus.value() for modulus in parameters.coeff_modulus()]
    context = sealapi.SEALContext(parameters, True, level[security])
    if not context.parameters_set() or primes != [prime]:
        raise ProtectionError(f"SEAL refuses these parameters ({context.parameters_error_message()})")
    return context


class BfvEncryptor:
    """Encrypts the blocks of one update.

    *Guarantee*: IND-CPA under Ring-LWE, at the security that the prime stands for; see the module.
    *Assumption*: the keys are of one sealing, and each of its blocks is encrypted once.

    Parameters
    ----------
    context : BfvContext
        Prime and plain modulus.
    keys : BfvKeys
        With the sealer's own secret alone.
    """

    def __init__(self, context: BfvContext, keys: BfvKeys) -> None:
        self._context, self._common = context, keys.common
        self._secret = context.transformed(keys.secret_sum())
        self._noise = NoiseSource()

    def encrypt(self, first: int, words: np.ndarray) -> np.ndarray:
        """Encrypt consecutive blocks.

        Parameters
        ----------
        first : int
            Index of the first block in its group.
        words : ndarray of uint64, shape (blocks, 4096)
            Each below ``2^m``.

        Returns
        -------
        ndarray of uint64, shape (blocks, 4096)
            ``c0``, each below ``q``.
        """
        prime = np.uint64(self._context.prime)
        c0 = self._context.scaled(words)
        c0 += prime - self._products(first, len(words))
        np.minimum(c0, c0 - prime, out=c0)
        c0 += self._noise.polynomials(len(words)).view(np.uint64)
        np.minimum(c0, c0 + prime, out=c0)  # below 0 is beyond 2^63
        return np.minimum(c0, c0 - prime, out=c0)

    def _products(self, first: int, blocks: int) -> np.ndarray:
        """Return ``a s`` of each block: SEAL multiplies two polynomials at a time."""
        factors = uniform_polynomials(self._common, first, blocks, self._context.prime)
        products = np.empty_like(factors)
        for start in range(0, blocks, 2):
            pair = factors[start : start + 2]
            cipher = self._context.pair(pair[0], pair[-1])
            self._context.evaluator.multiply_plain_inplace(cipher, self._secret)
            products[start : start + 2] = self._context.polynomials(cipher)[: len(pair)]
        return products


class BfvDecryptor:
    """Decrypts blocks of one sum.

    *Assumption*: the caller opens only sums that carry a verified manifest, and uses nothing of one whose tag is wrong:
    what such a sum opens to depends on the secret.

    Parameters
    ----------
    context : BfvContext
        Prime and plain modulus.
    keys : BfvKeys
        With the secrets of all members of the sum.
    """

    def __init__(self, context: BfvContext, keys: BfvKeys) -> None:
        from tenseal import sealapi

        self._context, self._common = context, keys.common
        secret = sealapi.SecretKey()
        stream = context.bridge.saved(context.transformed(keys.secret_sum()))
        context.bridge.load(secret, context.seal, stream)
        self._decryptor = sealapi.Decryptor(context.seal, secret)

    def decrypt_sum(self, first: int, c0: np.ndarray) -> np.ndarray:
        """Decrypt consecutive blocks of a sum.

        Parameters
        ----------
        first : int
            Index of the first block in its group.
        c0 : ndarray of uint64, shape (blocks, 4096)
            ``Σ_k c0_k`` modulo ``q``, within the noise that the packing allows.

        Returns
        -------
        ndarray of uint64, shape (blocks, 4096)
            The sum of the plaintexts modulo ``2^m``.

        Raises
        ------
        ContainerError
            If it is no ciphertext.
        """
        from tenseal import sealapi

        words = np.empty(c0.shape, np.uint64)
        plain = sealapi.Plaintext()
        common = uniform_polynomials(self._common, first, len(c0), self._context.prime)
        for index, block in enumerate(c0):
            try:
                self._decryptor.decrypt(self._context.pair(block, common[index]), plain)
            except (RuntimeError, ValueError) as error:
                raise ContainerError(f"a sum cannot be decrypted ({error})", kept="Nothing was opened") from error
            words[index] = self._context.words(plain)
        return words
