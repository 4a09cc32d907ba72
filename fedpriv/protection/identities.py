"""Public keys on the store: put there signed by themselves, trusted only by a fingerprint pinned beforehand."""

from __future__ import annotations

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection.keys import IdentityKeys, fingerprint, open_signed, sign
from fedpriv.study.messages import Identity, Signed


def signed_identity(keys: IdentityKeys) -> bytes:
    """Return a party's public keys, signed by themselves, as they are put on the store."""
    return canonical_json(sign(keys, "identity", keys.identity).model_dump(mode="json"))


def parse_identity(data: bytes, email: str, pinned: str) -> Identity:
    """Read public keys from the store and trust them only if their fingerprint is the pinned one.

    Raises
    ------
    SignatureError
        If the fingerprint or the signature does not match.
    """
    try:
        signed = Signed.model_validate_json(data)
        identity = Identity.model_validate_json(canonical_json(signed.payload))
    except ValueError as error:
        raise UntrustedError(
            f"The public keys of {email} on the store cannot be read", kept="Nothing was sent"
        ) from error
    if identity.email != email or fingerprint(identity) != pinned:
        raise SignatureError(
            f"The public keys of {email} on the store are not the pinned ones",
            kept="Nothing was sent to it",
            todo="compare fingerprints over the phone",
        )
    return open_signed(signed, kind="identity", identity=identity, model=Identity)
