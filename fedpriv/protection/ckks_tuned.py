"""Level ``ckks-tuned``: the smallest CKKS that we know how to make. The honest HE-FL baseline.

N = 4096, one prime of 30 bits, scale 2^22, symmetric encryption with the second polynomial as a seed, and the residues
packed to their 30 bits: 7.5 bytes a parameter (SEAL's own compression gives 8.5). 2047 values and one count a block. A
row is the seed (64 bytes) and c0's residues in SEAL's order; a sum's row has all seeds.

Values are cut to [-1, 1]. Nothing wraps then: a coefficient of an encoded block is the scale times the mean of 4096
products of a slot (or its conjugate) and a root of unity, so at most 2^22 in magnitude, whatever the values; it is
reached, at coefficient 0, where all are equal. With the rounding (1/2) and the noise of one encryption (21), a sum of
``K`` has coefficients of at most K (2^22 + 21.5), below half the prime up to K = 127.

*Assumption*: as for level ``ckks``: sums stay within the cohort, a member could open another's single update, and the
count is no tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError, TamperedError, UntrustedError
from fedpriv.protection.bfv import add_modular
from fedpriv.protection.bitplanes import WORDS, pack_words, packed_bytes, unpack_words
from fedpriv.protection.blocks import SealedRows
from fedpriv.protection.seal_streams import MAX_STREAM_BYTES, Bridge, foreign_seal, stream_body, with_head

DEGREE = WORDS
PRIME = 1073692673
PRIME_BITS = 30
SCALE = 2.0**22
SEED_BYTES = 64
VALUES = DEGREE // 2 - 1
"""Parameters in a block: one slot less than there are, for the count."""

MAX_CLIENTS = 127
"""The largest ``K`` with K (2^22 + 21.5) < q/2: the scale, the rounding and the noise of one encryption."""

_HEAD_BYTES = 97
"""Bytes before the residues in SEAL's stream: which parameters, size, form and scale, then the residues' own header."""

_DATA_BYTES = 8 * DEGREE
_SEED_HEAD_BYTES = 17
"""Bytes between the residues and the seed: a header of 16 and the generator's name."""

_COUNT_TOLERANCE = 0.01
_WORDS = np.dtype("<u8")
_KEPT = "Nothing was added or opened"


@dataclass(frozen=True)
class CkksTunedShape:
    """The sizes of tuned CKKS blocks."""

    width: int = VALUES
    row_bytes: int = SEED_BYTES + packed_bytes(PRIME_BITS)

    def sum_row_bytes(self, clients: int) -> int:
        return clients * SEED_BYTES + packed_bytes(PRIME_BITS)


def require_room(clients: int) -> None:
    """Check that sums of so many updates do not wrap.

    Raises
    ------
    ProtectionError
        If they could.
    """
    if not 1 <= clients <= MAX_CLIENTS:
        raise ProtectionError(
            f"sums of {clients} updates do not fit into the modulus of level ckks-tuned",
            todo=f"use another level, or a cohort of at most {MAX_CLIENTS}",
        )


def make_ckks_tuned_key() -> bytes:
    """Return a new secret key as SEAL writes it (SECRET), drawn from the system's randomness."""
    from tenseal import sealapi

    context = _Context()
    return context.bridge.saved(sealapi.KeyGenerator(context.seal).secret_key())


def seal_stream_bytes(secret: bytes) -> int:
    """Return the size of one block's ciphertext as SEAL itself writes it, in bytes; for the benchmark's honesty."""
    return len(CkksTunedSealer(secret).stream(np.zeros(VALUES, np.float32)))


class CkksTunedSealer:
    """Encrypts blocks of :data:`VALUES` parameters and one count with the secret key.

    *Guarantee*: without the secret key, nothing but the number of parameters is learned (IND-CPA); every block has a
    fresh seed of the system's randomness.
    *Assumption*: see the module.
    """

    def __init__(self, secret: bytes) -> None:
        from tenseal import sealapi

        self._context = _Context()
        self._encoder = sealapi.CKKSEncoder(self._context.seal)
        self._encryptor = sealapi.Encryptor(self._context.seal, self._context.load_secret(secret))
        self._form = _Form.of(self.stream(np.zeros(VALUES, np.float32)))

    def seal(self, first: int, values: np.ndarray) -> SealedRows:
        """Encrypt values, cut to [-1, 1]; see :class:`fedpriv.protection.blocks.BlockSealer`.

        Raises
        ------
        ProtectionError
            If a value is not finite, or SEAL writes another form than expected.
        """
        if not np.isfinite(values).all():
            raise ProtectionError("an update holds values that are not finite", kept="Nothing was sealed")
        cut = np.clip(values, -1, 1)
        starts = range(0, values.size, VALUES)
        parts = [self._form.split(self.stream(cut[start : start + VALUES])) for start in starts]
        seeds, words = np.stack([seed for seed, _ in parts]), np.stack([words for _, words in parts])
        return SealedRows(
            rows=np.concatenate([seeds, pack_words(words, PRIME_BITS)], axis=1),
            residual=values - cut,
            clipped=int(np.count_nonzero(values != cut)),
        )

    def stream(self, values: np.ndarray) -> bytes:
        """Return one block's ciphertext as SEAL writes it; at most :data:`VALUES` values, each in [-1, 1]."""
        from tenseal import sealapi

        plain = sealapi.Plaintext()
        slots = [*values.tolist(), *[0.0] * (VALUES - values.size), 1.0]
        self._encoder.encode(slots, SCALE, plain)
        return self._context.bridge.saved(self._encryptor.encrypt_symmetric(plain))


class CkksTunedAdder:
    """Adds residues modulo the prime with numpy alone, and passes the seeds on; needs no key."""

    def add(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Add rows; see :class:`fedpriv.protection.blocks.BlockAdder`."""
        total: np.ndarray | None = None
        seeds: list[np.ndarray] = []
        for rows in parts:
            words = _residues(rows, 1)
            seeds.append(rows[:, :SEED_BYTES].copy())  # a view would keep the rows
            if total is None:
                total = words
            elif len(words) != len(total):  # numpy would repeat a single block
                raise ContainerError("the updates do not have the same number of tuned CKKS blocks", kept=_KEPT)
            else:
                add_modular(total, words, PRIME)
        if total is None:
            raise ContainerError("there is no update to add", kept=_KEPT)
        beside = np.concatenate(seeds, axis=1)
        _require_fresh(beside)
        return np.concatenate([beside, pack_words(total, PRIME_BITS)], axis=1)


class CkksTunedOpener:
    """Decrypts sums of ``clients`` updates.

    *Guarantee*: a sum whose count is not ``clients`` is not returned, so neither is what another key opens.
    *Assumption*: see the module.

    Parameters
    ----------
    secret : bytes
        The key of :func:`make_ckks_tuned_key`.
    clients : int
        1 to :data:`MAX_CLIENTS`; more could wrap.
    """

    def __init__(self, secret: bytes, clients: int) -> None:
        from tenseal import sealapi

        require_room(clients)
        self._context = _Context()
        key = self._context.load_secret(secret)
        self._clients = clients
        self._encoder = sealapi.CKKSEncoder(self._context.seal)
        self._evaluator = sealapi.Evaluator(self._context.seal)
        self._decryptor = sealapi.Decryptor(self._context.seal, key)
        self._form = _Form.of(CkksTunedSealer(secret).stream(np.zeros(VALUES, np.float32)))
        self._seeded = sealapi.Ciphertext()
        self._seeds = Bridge()  # holds the stream of a ciphertext with c0 = 0, in which only the seed is replaced
        self._seeds.put(self._form.stream(np.zeros(DEGREE, np.uint64), np.zeros(SEED_BYTES, np.uint8)))

    def open(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Decrypt rows; see :class:`fedpriv.protection.blocks.BlockOpener`."""
        slots = self.slots(rows)
        if not (np.abs(slots[:, VALUES] - self._clients) < _COUNT_TOLERANCE).all():
            what = "the sum does not hold the updates that its manifest lists, or the key is another"
            raise TamperedError(what, kept="It was not used")
        return slots[:, :VALUES].reshape(-1)[:number]

    def slots(self, rows: np.ndarray) -> np.ndarray:
        """Decrypt rows whatever they hold: float64, shape (blocks, :data:`VALUES` + 1), the last one the count.

        Raises
        ------
        ContainerError
            If a row is malformed.
        """
        words = _residues(rows, self._clients)
        beside = rows[:, : self._clients * SEED_BYTES]
        _require_fresh(beside)
        seeds = beside.reshape(len(rows), self._clients, SEED_BYTES)
        return np.array([self._slots(block, seed) for block, seed in zip(words, seeds, strict=True)])

    def _slots(self, words: np.ndarray, seeds: np.ndarray) -> list[float]:
        from tenseal import sealapi

        total, plain = sealapi.Ciphertext(), sealapi.Plaintext()
        try:
            self._context.bridge.load(total, self._context.seal, self._form.stream(words, seeds[0]))
            for seed in seeds[1:]:
                self._seeds.put_end(seed.tobytes())
                self._seeds.read(self._seeded, self._context.seal)
                self._evaluator.add_inplace(total, self._seeded)
            self._decryptor.decrypt(total, plain)
            return self._encoder.decode_double(plain)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ContainerError(f"a sum cannot be decrypted ({error})", kept="Nothing was opened") from error


@dataclass(frozen=True)
class _Form:
    """What SEAL writes around the residues and the seed of a ciphertext; the same for each of this level."""

    head: bytes
    seed_head: bytes

    @classmethod
    def of(cls, stream: bytes) -> _Form:
        """Return the form of a ciphertext that our own SEAL wrote."""
        body = stream_body(stream)
        end = _HEAD_BYTES + _DATA_BYTES
        form = cls(body[:_HEAD_BYTES], body[end : end + _SEED_HEAD_BYTES])
        _, words = form.split(stream)
        if int(words.max()) >= PRIME:
            raise foreign_seal()
        return form

    def split(self, stream: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Return the seed (uint8, shape (64,)) and ``c0`` (uint64, shape (4096,)) of a saved ciphertext."""
        body = stream_body(stream)
        end = _HEAD_BYTES + _DATA_BYTES
        start = end + _SEED_HEAD_BYTES
        if len(body) != start + SEED_BYTES or body[:_HEAD_BYTES] != self.head or body[end:start] != self.seed_head:
            raise foreign_seal()
        words = np.frombuffer(body, _WORDS, DEGREE, _HEAD_BYTES).astype(np.uint64)
        return np.frombuffer(body, np.uint8, SEED_BYTES, start), words

    def stream(self, words: np.ndarray, seed: np.ndarray) -> bytes:
        """Return the stream that SEAL reads as the ciphertext of ``c0`` and a seed; the inverse of :meth:`split`."""
        return with_head(self.head + words.astype(_WORDS).tobytes() + self.seed_head + seed.tobytes())


class _Context:
    """SEAL's context of this level, and a bridge to it."""

    def __init__(self) -> None:
        from tenseal import sealapi

        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [PRIME_BITS]))
        self.seal = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC256)
        primes = [modulus.value() for modulus in parameters.coeff_modulus()]
        if not self.seal.parameters_set() or primes != [PRIME]:
            raise ProtectionError("SEAL refuses the tuned CKKS parameters", todo="install tenseal 0.3.18")
        self.bridge = Bridge()

    def load_secret(self, secret: bytes) -> Any:
        from tenseal import sealapi

        key = sealapi.SecretKey()
        try:
            if len(secret) > MAX_STREAM_BYTES:
                raise ValueError("too long")
            self.bridge.load(key, self.seal, secret)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UntrustedError(f"the CKKS key cannot be read ({error})", kept="It was not used") from error
        return key


def _residues(rows: np.ndarray, clients: int) -> np.ndarray:
    """Return the residues in rows (uint64, shape (blocks, 4096)), after checking size and range."""
    if rows.ndim != 2 or rows.shape[1] != CkksTunedShape().sum_row_bytes(clients):
        raise ContainerError("a tuned CKKS block has a wrong size", kept=_KEPT)
    words = unpack_words(rows[:, clients * SEED_BYTES :], PRIME_BITS)
    if int(words.max(initial=0)) >= PRIME:
        raise ContainerError("a ciphertext has a coefficient out of range", kept=_KEPT)
    return words


def _require_fresh(seeds: np.ndarray) -> None:
    """Refuse blocks in which two of ``K`` seeds (uint8, shape (blocks, 64 K)) are the same."""
    for block in seeds.reshape(len(seeds), -1, SEED_BYTES):
        if len({seed.tobytes() for seed in block}) != len(block):
            raise ContainerError("a ciphertext's seed was used twice", kept=_KEPT)
