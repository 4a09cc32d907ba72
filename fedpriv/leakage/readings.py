"""Readings: what the rows of one update's container stand for, to somebody who has some of its secrets, or none.

What is missing is taken for zero: a mask that is not known, and a secret key that is not held. Were the protection
missing, the readings would give the update back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.leakage.pursuit import Float64
from fedpriv.protection.bfv import BfvContext, BfvDecryptor, BfvKeys
from fedpriv.protection.ckks import VALUES, CkksOpener, load_public, load_vector
from fedpriv.protection.ckks_tuned import DEGREE, CkksTunedOpener, make_ckks_tuned_key
from fedpriv.protection.ckks_tuned import VALUES as TUNED_VALUES
from fedpriv.protection.keys import key_of
from fedpriv.protection.levels import mask_offset, packing_of
from fedpriv.protection.masks import MaskSource, MaskStreams
from fedpriv.protection.packed import sent_words
from fedpriv.protection.packing import Packing
from fedpriv.protection.plain import PlainOpener
from fedpriv.protection.seal_streams import stream_body, with_head
from fedpriv.protection.study_key import StudyKey, public_material, read_parameters, secret_name
from fedpriv.study.messages import Unlocked, UpdateHeader
from fedpriv.study.protection_choice import ProtectionLevel

_NO_MASKS = MaskStreams(added=(), subtracted=())


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What a party has of the secrets of one update.

    Attributes
    ----------
    key : StudyKey or None
        The study key, which every domain holds and nobody else.
    masks : MaskStreams
        The masks of the update that it knows, as its sealer added and subtracted them.
    all_masks : bool
        Whether these are all of them.
    """

    key: StudyKey | None = None
    masks: MaskStreams = field(default=_NO_MASKS, repr=False)
    all_masks: bool = False

    def level(self, level: ProtectionLevel) -> str:
        """Return how a level of the plan protects from this party: a level, or ``opened`` where it does not."""
        match level:
            case "plain":
                return "plain"
            case "sealed" | "masked" if self.key is not None or level == "masked":
                return "opened" if self.all_masks else "masked"
            case "ckks" | "ckks-tuned" if self.key is not None:
                return "opened"
            case _:
                return level


def secrets_of(
    header: UpdateHeader,
    *,
    key: StudyKey | None = None,
    sources: Sequence[MaskSource] = (),
    unlocked: Unlocked | None = None,
) -> Secrets:
    """Return what members who collude, and whoever has seen the round's unlocks, know of one member's update.

    Each of them shares one pairwise mask with its member. The self mask and the masks towards members that dropped out
    are known to all once the sum is unlocked.

    Raises
    ------
    ProtectionError
        If a source is of the update's own member, or of another study or cohort.
    """
    pairs = {source.member: source.shared_with(header) for source in sources}
    own: tuple[bytes, ...] = ()
    if unlocked is not None:
        if header.member in unlocked.self_masks:
            own = (key_of(unlocked.self_masks[header.member]),)
        pairs |= {m: key_of(text) for m, text in _with_dropped(unlocked, header.member).items()}
    everybody = set(sources[0].members) if sources else set()
    return Secrets(
        key=key,
        masks=MaskStreams(
            added=(*own, *(pair for other, pair in pairs.items() if header.member < other)),
            subtracted=tuple(pair for other, pair in pairs.items() if header.member > other),
        ),
        all_masks=bool(own) and everybody == {header.member, *pairs},
    )


def _with_dropped(unlocked: Unlocked, member: str) -> Mapping[str, str]:
    """Return the keys of pairwise masks on a member's update that a recovery laid open, by the other member."""
    others = {gone: keys[member] for gone, keys in unlocked.dropped.items() if member in keys}
    return others | dict(unlocked.dropped.get(member, {}))


def readings(rows: np.ndarray, header: UpdateHeader, public: bytes, index: int, secrets: Secrets) -> Float64:
    """Return the values of a group in units of its tensors' scales, as somebody with these secrets reads them.

    Parameters
    ----------
    rows : ndarray of uint8, shape (blocks, row_bytes)
        All blocks of the group.
    header : UpdateHeader
        Of the update.
    public : bytes
        The study key's public bytes.
    index : int
        Number of the group.
    secrets : Secrets
        What is known; the rest is taken for zero.

    Returns
    -------
    ndarray of float64, shape (parameters,)

    Raises
    ------
    ContainerError
        If a row is malformed.
    TamperedError
        If it is not of the study key that is held (levels ckks and ckks-tuned).
    """
    parameters = read_parameters(public)
    group = parameters.groups[index]
    secret = None if secrets.key is None else secrets.key.secrets.get(secret_name(index))
    number = group.parameters
    match group.level:
        case "plain":
            return PlainOpener(1).open(0, rows, number).astype(np.float64)
        case "ckks":
            material = public_material(public)
            if secret is None:
                return ckks_without_secret(material, rows)[:number]
            return CkksOpener(material, secret, 1).open(0, rows, number)
        case "ckks-tuned":
            if secret is None:
                return ckks_tuned_without_secret(rows)[:number]
            return CkksTunedOpener(secret, 1).open(0, rows, number)
        case "sealed" | "masked":
            packing = packing_of(parameters, index)
            words = sent_words(packing, rows)
            if secret is not None:
                context = BfvContext(packing.plain_bits, packing.prime)
                words = BfvDecryptor(context, BfvKeys.of(secret, [header], index)).decrypt_sum(0, words)
            elif packing.prime:
                words = without_secret(packing, words)
            words -= secrets.masks.words(mask_offset(parameters, index), len(words))
            words &= np.uint64(2**packing.plain_bits - 1)
            return values_of(packing, words)[:number]


def without_secret(packing: Packing, words: np.ndarray) -> np.ndarray:
    """Return what the coefficients of BFV ciphertexts decrypt to with the secret key zero: uint64, in their shape.

    A ciphertext is ``c0 = round(q x / 2^m) + e - a s``: with ``s = 0`` it decrypts to ``round(2^m c0 / q)``.
    """
    # Exact integers of Python's: the product has more than 64 bits.
    scaled = (words.astype(object) * 2 ** (packing.plain_bits + 1) + packing.prime) // (2 * packing.prime)
    return (scaled % 2**packing.plain_bits).astype(np.uint64)


def values_of(packing: Packing, words: np.ndarray) -> Float64:
    """Return the values that plain words stand for.

    Parameters
    ----------
    packing : Packing
        The group's.
    words : ndarray of uint64, shape (blocks, 4096)
        Below ``2^m``.

    Returns
    -------
    ndarray of float64, shape (blocks * width,)
        In units of the tensors' scales: within ±1 if the words are of one update and no mask is left on them.
    """
    rest = words[:, : packing.value_words].reshape(-1).copy()
    digits = np.empty((rest.size, packing.digits))
    for column in range(packing.digits):
        digits[:, column] = rest % np.uint64(packing.radix)
        rest //= np.uint64(packing.radix)
    return (digits.reshape(-1) - packing.half) / packing.half


def ckks_without_secret(public: bytes, rows: np.ndarray) -> Float64:
    """Return what rows of level ``ckks`` decrypt to with the secret key zero: the first polynomial alone.

    SEAL itself decrypts and decodes, with a key that is set to zero.

    Parameters
    ----------
    public : bytes
        TenSEAL's public context, as the aggregator has it.
    rows : ndarray of uint8, shape (blocks, row_bytes)
        Of one update.

    Returns
    -------
    ndarray of float64, shape (blocks * width,)

    Raises
    ------
    ContainerError
        If a row is malformed.
    UntrustedError
        If the context cannot be read.
    """
    from tenseal import sealapi

    context = load_public(public)
    seal = context.seal_context().data
    key = sealapi.KeyGenerator(seal).secret_key()
    key.data().set_zero()
    if not key.data().is_zero():
        raise ProtectionError("SEAL does not let its key be set to zero", todo="install tenseal 0.3.18")
    decryptor, encoder, plain = sealapi.Decryptor(seal, key), sealapi.CKKSEncoder(seal), sealapi.Plaintext()
    found = []
    for row in rows:
        decryptor.decrypt(load_vector(context, row).ciphertext()[0], plain)
        found.append(encoder.decode_double(plain)[:VALUES])
    return np.array(found, np.float64).reshape(-1)


def ckks_tuned_without_secret(rows: np.ndarray) -> Float64:
    """Return what rows of level ``ckks-tuned`` decrypt to with the secret key zero; see :func:`ckks_without_secret`."""
    return CkksTunedOpener(zero_key(), 1).slots(rows)[:, :TUNED_VALUES].reshape(-1)


def zero_key() -> bytes:
    """Return the secret key zero of level ``ckks-tuned`` as SEAL writes it: what it encrypts, everybody can read."""
    body = stream_body(make_ckks_tuned_key())
    return with_head(body[: -8 * DEGREE] + bytes(8 * DEGREE))
