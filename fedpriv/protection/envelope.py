"""Data sealed to one recipient, whoever carries it: how the study key travels from its maker to the others."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedpriv.errors import UntrustedError
from fedpriv.protection.keys import KEY_BYTES, IdentityKeys, derive, key_of
from fedpriv.study.messages import Identity

MAGIC = b"fps1"
SEALED_OVERHEAD_BYTES = len(MAGIC) + KEY_BYTES + 16


def seal_to(recipient: Identity, data: bytes, *, context: bytes) -> bytes:
    """Encrypt ``data`` so that only ``recipient`` can read it, and only in the same ``context``.

    An ephemeral X25519 key, HKDF-SHA256, ChaCha20-Poly1305 with a key and nonce of its own for each call.

    *Guarantee*: without the recipient's agreement key nothing but the length is learned; a change is noticed.
    *Assumption*: it does not say who sealed it, anyone can; the sender signs a message that names its digest.

    Parameters
    ----------
    recipient : Identity
        The pinned identity of who shall read it.
    data : bytes
        The secret.
    context : bytes
        What it is for (study, sender, recipient); needed again, unchanged, to open it.

    Returns
    -------
    bytes
        ``len(data) + SEALED_OVERHEAD_BYTES`` bytes.

    Raises
    ------
    UntrustedError
        If the recipient's agreement key is unusable.
    """
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    target = key_of(recipient.agreement_key)
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(target))
    except ValueError as error:
        raise UntrustedError(f"the agreement key of {recipient.email} is not a usable point") from error
    key, nonce, info = _sealing_key(shared, public, target, context)
    return MAGIC + public + ChaCha20Poly1305(key).encrypt(nonce, data, info)


def open_sealed(keys: IdentityKeys, sealed: bytes, *, context: bytes) -> bytes:
    """Return what :func:`seal_to` sealed to the holder of ``keys`` in the same ``context``.

    Raises
    ------
    UntrustedError
        If it is too short, of another version, sealed to someone else or in another context, or was changed.
    """
    if len(sealed) < SEALED_OVERHEAD_BYTES or sealed[:4] != MAGIC:
        raise UntrustedError("this is not sealed data of this version", kept="It was not used", todo="upgrade fedpriv")
    public, body = sealed[4 : 4 + KEY_BYTES], sealed[4 + KEY_BYTES :]
    own = key_of(keys.identity.agreement_key)
    key, nonce, info = _sealing_key(keys.agree(public), public, own, context)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, body, info)
    except InvalidTag as error:
        what = "sealed data was changed, or was sealed to another party or for another purpose"
        raise UntrustedError(what, kept="It was not used") from error


def _sealing_key(shared: bytes, public: bytes, target: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    info = b"fedpriv 1 sealed\n" + public + target + context
    material = derive(shared, info, KEY_BYTES + 12)
    return material[:KEY_BYTES], material[KEY_BYTES:], info
