"""BFV over the integers modulo 2^m with values in the coefficients, from SEAL (through ``tenseal.sealapi``).

N = 4096 and one prime, no batching, no evaluation keys: sums need neither. A ciphertext is the pair (c0, seed): the
second polynomial is expanded from a seed of 64 bytes, which halves it. Sums of c0 are plain modular additions, so the
aggregator needs no SEAL. Fan and Vercauteren 2012 (IACR 2012/144). SEAL accepts the prime of 60 bits at 192 bits of
classical security and that of 58 bits at 256 (Homomorphic Encryption Standard, ternary secret); SEAL checks it whenever
a context is built.

SEAL reads and writes by path only. :class:`Bridge` gives it a file in memory, so that no plain value meets a disk.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.packing import PRIMES

DEGREE = WORDS
SEED_BYTES = 64

_WORDS = np.dtype("<u8")
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC = 0xA15E
_SEAL_VERSION = (4, 3)
_RAW, _ZSTD = 0, 2
_PRNG_BLAKE2XB = 1
_MAX_STREAM_BYTES = 2**17


def add_modular(total: np.ndarray, part: np.ndarray, prime: int) -> None:
    """Add ``part`` to ``total`` modulo ``prime``, in place; both uint64 and below it (below 2^60, so nothing wraps)."""
    total += part
    np.minimum(total, total - np.uint64(prime), out=total)


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
        If SEAL refuses the parameters, or is of another version than the streams here.
    """

    def __init__(self, plain_bits: int, prime: int) -> None:
        from tenseal import sealapi

        level = {"tc192": sealapi.SEC_LEVEL_TYPE.TC192, "tc256": sealapi.SEC_LEVEL_TYPE.TC256}
        security = next(name for name, known in PRIMES.items() if known == prime)
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [prime.bit_length()]))
        parameters.set_plain_modulus(2**plain_bits)
        primes = [modulus.value() for modulus in parameters.coeff_modulus()]
        self.seal = sealapi.SEALContext(parameters, True, level[security])
        if not self.seal.parameters_set() or primes != [prime]:
            raise ProtectionError(f"SEAL refuses these parameters ({self.seal.parameters_error_message()})")
        self.plain_bits = plain_bits
        self.prime = prime
        self.bridge = Bridge()
        identifier = struct.pack("<4Q", *self.seal.first_parms_id())
        words = _raw_stream_head(8 + 8 * DEGREE) + struct.pack("<Q", DEGREE)
        self._plain_head = bytes(32) + struct.pack("<Qd", DEGREE, 1.0) + words
        self._cipher_head = identifier + struct.pack("<BQQQdQ", 0, 2, DEGREE, 1, 1.0, 1) + words
        self._seed_head = _raw_stream_head(1 + SEED_BYTES) + bytes([_PRNG_BLAKE2XB])

    def new_secret(self) -> bytes:
        """Return a new secret key as SEAL writes it (SECRET), drawn from the system's randomness."""
        from tenseal import sealapi

        return self.bridge.saved(sealapi.KeyGenerator(self.seal).secret_key())

    def load_secret(self, secret: bytes) -> Any:
        """Return SEAL's secret key from :meth:`new_secret`'s bytes.

        Raises
        ------
        UntrustedError
            If they are not one of this context.
        """
        from tenseal import sealapi

        key = sealapi.SecretKey()
        try:
            if len(secret) > _MAX_STREAM_BYTES:
                raise ValueError("too long")
            self.bridge.load(key, self.seal, secret)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UntrustedError(f"the study key's secret cannot be read ({error})", kept="It was not used") from error
        return key

    def plaintext(self, words: np.ndarray) -> Any:
        """Return SEAL's plaintext of ``words`` (uint64, shape (4096,), below 2^m)."""
        from tenseal import sealapi

        plain = sealapi.Plaintext()
        self.bridge.load(plain, self.seal, with_head(self._plain_head + words.astype(_WORDS).tobytes()))
        return plain

    def words(self, plain: Any) -> np.ndarray:
        """Return the coefficients (uint64, shape (4096,)) of SEAL's plaintext; the inverse of :meth:`plaintext`.

        Raises
        ------
        ProtectionError
            If SEAL wrote another form than the one known here.
        """
        body = stream_body(self.bridge.saved(plain))
        count = plain.coeff_count()
        start = len(body) - 8 * count
        if count > DEGREE or start != len(self._plain_head) or body[:32] != bytes(32):
            raise _foreign_seal()
        words = np.zeros(DEGREE, np.uint64)
        words[:count] = np.frombuffer(body, _WORDS, count, start)
        return words

    def split(self, stream: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Return ``c0`` (uint64, shape (4096,)) and the seed (uint8, shape (64,)) of a saved seeded ciphertext.

        Raises
        ------
        ProtectionError
            If SEAL wrote another form than the one known here.
        """
        body = stream_body(stream)
        start, end = len(self._cipher_head), len(self._cipher_head) + 8 * DEGREE
        seed = body[end + len(self._seed_head) :]
        if body[:start] != self._cipher_head or body[end : -len(seed)] != self._seed_head or len(seed) != SEED_BYTES:
            raise _foreign_seal()
        return np.frombuffer(body, _WORDS, DEGREE, start).astype(np.uint64), np.frombuffer(seed, np.uint8)

    def stream(self, c0: np.ndarray, seed: np.ndarray) -> bytes:
        """Return the stream that SEAL reads as the ciphertext of ``c0`` and a seed; the inverse of :meth:`split`."""
        return with_head(self._cipher_head + c0.astype(_WORDS).tobytes() + self._seed_head + seed.tobytes())

    def ciphertext(self, c0: np.ndarray, seed: np.ndarray) -> Any:
        """Return SEAL's ciphertext of ``c0`` (below q) and a seed.

        Raises
        ------
        ContainerError
            If it is no ciphertext of this context.
        """
        from tenseal import sealapi

        cipher = sealapi.Ciphertext()
        try:
            self.bridge.load(cipher, self.seal, self.stream(c0, seed))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ContainerError(f"a ciphertext cannot be read ({error})", kept="Nothing was opened") from error
        return cipher


class BfvEncryptor:
    """Encrypts with the secret key, each time with fresh randomness of the system.

    *Guarantee*: IND-CPA under Ring-LWE, at the security that the prime stands for.
    *Assumption*: none of its seeds is ever used again.
    """

    def __init__(self, context: BfvContext, secret: bytes) -> None:
        from tenseal import sealapi

        self._context = context
        self._encryptor = sealapi.Encryptor(context.seal, context.load_secret(secret))

    def encrypt(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encrypt one block.

        Parameters
        ----------
        words : ndarray of uint64, shape (4096,)
            Each below ``2^m``.

        Returns
        -------
        c0 : ndarray of uint64, shape (4096,)
            Each below ``q``.
        seed : ndarray of uint8, shape (64,)
            From which SEAL expands the second polynomial.
        """
        cipher = self._encryptor.encrypt_symmetric(self._context.plaintext(words))
        return self._context.split(self._context.bridge.saved(cipher))


class BfvDecryptor:
    """Decrypts sums.

    *Assumption*: the caller opens only sums that carry a verified manifest, and stops using the key once a sum's tag is
    wrong: whoever answers for chosen ciphertexts gives the key away.
    """

    def __init__(self, context: BfvContext, secret: bytes) -> None:
        from tenseal import sealapi

        self._context = context
        self._decryptor = sealapi.Decryptor(context.seal, context.load_secret(secret))
        self._evaluator = sealapi.Evaluator(context.seal)
        self._seeded = sealapi.Ciphertext()
        self._seeds = Bridge()  # holds the stream of a ciphertext with c0 = 0, in which only the seed is replaced
        self._seeds.put(context.stream(np.zeros(DEGREE, np.uint64), np.zeros(SEED_BYTES, np.uint8)))

    def decrypt_sum(self, c0: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Decrypt the sum of ciphertexts, given the sum of their ``c0`` and all their seeds.

        Parameters
        ----------
        c0 : ndarray of uint64, shape (4096,)
            ``Σ_k c0_k`` modulo ``q``, within the noise that the packing allows.
        seeds : ndarray of uint8, shape (K, 64)
            One seed for each ciphertext.

        Returns
        -------
        ndarray of uint64, shape (4096,)
            The sum of the plaintexts modulo ``2^m``.

        Raises
        ------
        ContainerError
            If it is no ciphertext.
        """
        from tenseal import sealapi

        total = self._context.ciphertext(c0, seeds[0])
        plain = sealapi.Plaintext()
        try:
            for seed in seeds[1:]:
                self._seeds.put_end(seed.tobytes())
                self._seeds.read(self._seeded, self._context.seal)
                self._evaluator.add_inplace(total, self._seeded)
            self._decryptor.decrypt(total, plain)
        except (RuntimeError, ValueError) as error:
            raise ContainerError(f"a sum cannot be decrypted ({error})", kept="Nothing was opened") from error
        return self._context.words(plain)


class Bridge:
    """A private file for SEAL's streams: in memory on Linux, else in a folder that only this user can read."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("fedpriv")
            self._path = f"/proc/self/fd/{self._descriptor}"
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="fedpriv-")
            self._path = str(Path(self._folder.name) / "stream")
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def saved(self, thing: Any) -> bytes:
        """Return the stream that ``thing`` of SEAL writes."""
        os.ftruncate(self._descriptor, 0)
        thing.save(self._path)
        return os.pread(self._descriptor, _MAX_STREAM_BYTES, 0)

    def load(self, thing: Any, context: Any, stream: bytes) -> None:
        """Let ``thing`` of SEAL read a stream; raises what SEAL raises."""
        self.put(stream)
        self.read(thing, context)

    def put(self, stream: bytes) -> None:
        """Hold a stream for :meth:`read`."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, stream, 0)

    def put_end(self, data: bytes) -> None:
        """Replace the last bytes of the stream that is held."""
        os.pwrite(self._descriptor, data, os.fstat(self._descriptor).st_size - len(data))

    def read(self, thing: Any, context: Any) -> None:
        """Let ``thing`` of SEAL read the stream that is held; raises what SEAL raises."""
        thing.load(context, self._path)

    def __del__(self) -> None:
        os.close(self._descriptor)


def _raw_stream_head(size: int) -> bytes:
    total = _SEAL_HEADER.size + size
    return _SEAL_HEADER.pack(_SEAL_MAGIC, _SEAL_HEADER.size, *_SEAL_VERSION, _RAW, 0, total)


def with_head(body: bytes) -> bytes:
    """Return a stream that SEAL reads, uncompressed; the inverse of :func:`stream_body`."""
    return _raw_stream_head(len(body)) + body


def stream_body(stream: bytes) -> bytes:
    """Return what a stream of SEAL holds, uncompressed; only for streams that our own SEAL wrote.

    Raises
    ------
    ProtectionError
        If SEAL wrote another form than the one known here.
    """
    if len(stream) < _SEAL_HEADER.size:
        raise _foreign_seal()
    head = _SEAL_HEADER.unpack_from(stream)
    known = (_SEAL_MAGIC, _SEAL_HEADER.size, *_SEAL_VERSION)
    if head[:4] != known or head[6] != len(stream) or head[4] not in (_RAW, _ZSTD):
        raise _foreign_seal()
    body = stream[_SEAL_HEADER.size :]
    if head[4] == _RAW:
        return body
    try:  # a new decompressor each time: one that two threads share corrupts silently
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=_MAX_STREAM_BYTES)
    except zstandard.ZstdError as error:
        raise _foreign_seal() from error


def _foreign_seal() -> ProtectionError:
    return ProtectionError("SEAL writes streams in another form than expected", todo="install tenseal 0.3.18")
