"""Level ``ckks``: approximate homomorphic encryption with TenSEAL, as others run it. The HE-FL baseline.

N = 8192, primes of 60, 40 and 40 bits, scale 2^40, 4096 slots a ciphertext, encrypted with the public key: about 57.6
bytes a parameter. The last slot of each block holds the constant 1, so that the opened sum counts its updates. A row is
the ciphertext's length (4 bytes, little-endian), the ciphertext as TenSEAL writes it, and zeros up to a fixed size.

*Assumption*: decrypted sums are shared with no one outside the cohort: CKKS results are approximate, and whoever sees
many of them together with their ciphertexts can find the key (Li and Micciancio 2021). There are no pairwise masks: a
member that gets another's row can open it. The count finds a missing update, one too many or another key; it is no tag:
an aggregator can add a known offset unnoticed. These are why ``sealed`` is the default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError, TamperedError, UntrustedError
from fedpriv.protection.blocks import SealedRows

DEGREE = 8192
PRIME_BITS = (60, 40, 40)
SCALE_BITS = 40
VALUES = DEGREE // 2 - 1
"""Parameters in a block: one slot less than there are, for the count."""

ROW_BYTES = 235_776
"""TenSEAL compresses a ciphertext, fresh or a sum, to 235 073 bytes on average (standard deviation 95; the largest of
22 500 had 235 338). The padding adds 0.3%; the margin is for sums, which cannot be encrypted again."""

LARGEST = 2.0**20
"""Largest value, in units of the scale. At 256 clients nothing wraps modulo q until 2^51, but beyond about 2^30 the
rounding of float64 would blur the count, and an honest sum would look tampered with."""

_LENGTH_BYTES = 4
_MIN_CIPHERTEXT = ROW_BYTES * 3 // 4
_COUNT_TOLERANCE = 1e-3
_ATTEMPTS = 8
_KEPT = "Nothing was added or opened"


@dataclass(frozen=True)
class CkksShape:
    """The sizes of CKKS blocks."""

    width: int = VALUES
    row_bytes: int = ROW_BYTES

    def sum_row_bytes(self, clients: int) -> int:
        return self.row_bytes


def make_ckks_keys() -> tuple[bytes, bytes]:
    """Make a key pair.

    Returns
    -------
    tuple of bytes
        The public context, without secret, relinearisation or rotation keys; and the one with the secret (SECRET).
    """
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(PRIME_BITS))
    context.global_scale = 2.0**SCALE_BITS
    return _save(context, secret=False), _save(context, secret=True)


class CkksSealer:
    """Encrypts blocks of :data:`VALUES` parameters and one count with the public key.

    *Guarantee*: without the secret key, nothing but the number of parameters is learned (IND-CPA).
    *Assumption*: see the module.
    """

    def __init__(self, public: bytes) -> None:
        self._context = load_public(public)

    def seal(self, first: int, values: np.ndarray) -> SealedRows:
        """Encrypt values; see :class:`fedpriv.protection.blocks.BlockSealer`.

        Raises
        ------
        ProtectionError
            If a value is beyond :data:`LARGEST`, or no ciphertext fits into a row.
        """
        if not (np.abs(values) <= LARGEST).all():
            what = f"an update holds values beyond {LARGEST:.0f} times their tensor's scale"
            raise ProtectionError(what, kept="Nothing was sealed", todo="see whether the training diverged")
        return SealedRows(
            rows=np.stack([self._row(values[start : start + VALUES]) for start in range(0, values.size, VALUES)])
        )

    def _row(self, values: np.ndarray) -> np.ndarray:
        import tenseal as ts

        slots = [*values.tolist(), *[0.0] * (VALUES - values.size), 1.0]
        ciphertext = ts.ckks_vector(self._context, slots).serialize()
        for _ in range(_ATTEMPTS):  # compressed sizes vary, whatever the values: another encryption of the same fits
            if len(ciphertext) <= ROW_BYTES - _LENGTH_BYTES:
                break
            ciphertext = ts.ckks_vector(self._context, slots).serialize()
        return _padded(ciphertext)


class CkksAdder:
    """Adds ciphertexts with the public context."""

    def __init__(self, public: bytes) -> None:
        self._context = load_public(public)

    def add(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Add rows; see :class:`fedpriv.protection.blocks.BlockAdder`."""
        totals: list[Any] = []
        for rows in parts:
            vectors = [load_vector(self._context, row) for row in rows]
            totals = _added(totals, vectors) if totals else vectors
        if not totals:
            raise ContainerError("there is no update to add", kept=_KEPT)
        return np.stack([_padded(total.serialize()) for total in totals])


class CkksOpener:
    """Decrypts sums of ``clients`` updates.

    *Guarantee*: a sum whose count is not ``clients`` is not returned, so neither is what another key opens.
    *Assumption*: see the module.
    """

    def __init__(self, public: bytes, secret: bytes, clients: int) -> None:
        self._context = _load_secret(public, secret)
        self._clients = clients

    def open(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Decrypt rows; see :class:`fedpriv.protection.blocks.BlockOpener`."""
        slots = np.array([load_vector(self._context, row).decrypt() for row in rows])
        if not (np.abs(slots[:, VALUES] - self._clients) < _COUNT_TOLERANCE).all():
            what = "the sum does not hold the updates that its manifest lists, or the key is another"
            raise TamperedError(what, kept="It was not used")
        values = slots[:, :VALUES].reshape(-1)[:number]
        if not np.isfinite(values).all():
            raise TamperedError("the opened sum holds values that are not finite", kept="It was not used")
        return values


def load_public(public: bytes) -> Any:
    """Return the TenSEAL context of public bytes.

    *Guarantee*: it holds no secret key, and encrypts with this level's parameters.

    Raises
    ------
    UntrustedError
        If it cannot be read, holds a secret key, or is of other parameters.
    """
    context = _load(public, "the public CKKS key")
    if context.is_private() or not context.has_public_key() or not _of_this_level(context):
        raise UntrustedError("the public CKKS key is of other parameters, or not only public", kept="It was not used")
    return context


def load_vector(context: Any, row: np.ndarray) -> Any:
    """Return the ciphertext of 4096 slots in a row (uint8, shape (ROW_BYTES,)).

    *Guarantee*: it has the size, the modulus and the scale of a fresh one, so that it can be added to others.

    Raises
    ------
    ContainerError
        If there is none.
    """
    import tenseal as ts

    if row.shape != (ROW_BYTES,):
        raise ContainerError("a CKKS block has a wrong size", kept=_KEPT)
    length = int.from_bytes(row[:_LENGTH_BYTES].tobytes(), "little")
    end = _LENGTH_BYTES + length
    if not _MIN_CIPHERTEXT <= length <= ROW_BYTES - _LENGTH_BYTES or row[end:].any():
        raise ContainerError("a CKKS block has an impossible length", kept=_KEPT)
    try:
        vector = ts.ckks_vector_from(context, row[_LENGTH_BYTES:end].tobytes())
        if vector.size() != VALUES + 1:
            raise ValueError(f"{vector.size()} slots in place of {VALUES + 1}")
        facts = [(c.size(), c.coeff_modulus_size(), c.scale, c.is_ntt_form()) for c in vector.ciphertext()]
        if facts != [(2, len(PRIME_BITS) - 1, 2.0**SCALE_BITS, True)]:
            raise ValueError("another size, modulus or scale")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ContainerError(f"a CKKS block cannot be read ({error})", kept=_KEPT) from error
    return vector


def _added(totals: list[Any], vectors: list[Any]) -> list[Any]:
    if len(totals) != len(vectors):
        raise ContainerError("the updates do not have the same number of CKKS blocks", kept=_KEPT)
    try:
        return [total.add_(vector) for total, vector in zip(totals, vectors, strict=True)]
    except (RuntimeError, ValueError) as error:  # such as a sum without a second polynomial
        raise ContainerError(f"CKKS blocks cannot be added ({error})", kept=_KEPT) from error


def _padded(ciphertext: bytes) -> np.ndarray:
    if len(ciphertext) > ROW_BYTES - _LENGTH_BYTES:
        raise ProtectionError("a CKKS ciphertext is larger than it can be", todo="install tenseal 0.3.18")
    row = np.zeros(ROW_BYTES, np.uint8)
    row[:_LENGTH_BYTES] = np.frombuffer(len(ciphertext).to_bytes(_LENGTH_BYTES, "little"), np.uint8)
    row[_LENGTH_BYTES : _LENGTH_BYTES + len(ciphertext)] = np.frombuffer(ciphertext, np.uint8)
    return row


def _load_secret(public: bytes, secret: bytes) -> Any:
    """Return the context with the secret, after checking that it decrypts what the public one encrypts."""
    import tenseal as ts

    probe = ts.ckks_vector(load_public(public), [1.0, -2.0]).serialize()
    context = _load(secret, "the CKKS key")
    try:
        fits = context.is_private() and _of_this_level(context)
        fits = fits and np.allclose(ts.ckks_vector_from(context, probe).decrypt(), [1, -2], atol=_COUNT_TOLERANCE)
    except (RuntimeError, ValueError):
        fits = False
    if not fits:
        raise UntrustedError("the public and the secret half of the CKKS key do not fit", kept="It was not used")
    return context


def _load(material: bytes, name: str) -> Any:
    import tenseal as ts

    try:
        return ts.context_from(material)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UntrustedError(f"{name} cannot be read ({error})", kept="It was not used") from error


def _of_this_level(context: Any) -> bool:
    """Return whether degree, modulus (with and without the special prime) and scale are this level's."""
    try:
        chain = context.seal_context().data
        key, first, scale = chain.key_context_data(), chain.first_context_data(), context.global_scale
    except (RuntimeError, ValueError):  # TenSEAL raises where no scale is set
        return False
    bits = (key.total_coeff_modulus_bit_count(), first.total_coeff_modulus_bit_count())
    expected = (DEGREE, (sum(PRIME_BITS), sum(PRIME_BITS[:-1])), 2.0**SCALE_BITS)
    return (key.parms().poly_modulus_degree(), bits, scale) == expected


def _save(context: Any, *, secret: bool) -> bytes:
    return context.serialize(
        save_public_key=True, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False
    )
