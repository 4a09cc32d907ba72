"""Keys for envelopes that are renewed, so that what a store kept cannot be read with what is found later.

A party's identity key signs, and is what others pin; it stays. An envelope is encrypted to the party's *prekey* (X3DH's
signed prekey), which is replaced every ``ROTATE_DAYS``. The one before opens what is still under way, and is deleted
after ``KEEP_DAYS``. Bundles carry a generation, signed by the identity key: a store cannot bring an older one back.
"""

from __future__ import annotations

import base64
import contextlib
import time
from pathlib import Path
from typing import Any

import syft_crypto_python
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, PrivateAttr
from syft.sync.peers.peer_store import PeerStore

from fedpriv.errors import SignatureError
from fedpriv.files import canonical_json, read_json, sha256_hex, write_json
from fedpriv.study.section import Section
from fedpriv.study.validation import validate_section

syc: Any = syft_crypto_python  # a native module without types

ROTATE_DAYS = 30.0
KEEP_DAYS = 14.0
_DAY_S = 86_400.0
_LABEL = b"fedpriv 1 bundle\n"
_MOST_PREVIOUS = 8
_MOST_GENERATIONS = 2**53


class _Previous(Section):
    """A prekey that was replaced, as syft writes it, and until when it is kept, in seconds since 1970."""

    prekey: dict[str, Any]
    until_s: float


class _Renewals(Section):
    """What lies beside the key file: which generation is in use, since when, and which went before it."""

    version: int = 1
    generation: int = Field(ge=0)
    since_s: float
    previous: tuple[_Previous, ...] = Field(default=(), max_length=_MOST_PREVIOUS)


class RenewedKeys(PeerStore):
    """syft's keys of a party and its peers, with a prekey that is renewed.

    *Guarantee*: a kill at any moment leaves keys that open everything which was sealed to them within ``KEEP_DAYS``.
    *Assumption*: whoever can read the disk now could also read what is sent now.
    """

    _path: Path = PrivateAttr()
    _stamp: int = PrivateAttr(default=0)
    _previous: tuple[_Previous, ...] = PrivateAttr(default=())
    _since_s: float = PrivateAttr(default=0.0)
    _generation: int = PrivateAttr(default=0)

    @classmethod
    def open(cls, email: str, keys_path: Path) -> RenewedKeys:
        """Read the key file that :func:`fedpriv.transport.create_transport_keys` made, and what lies beside it."""
        keys = cls.load_keys(keys_path)
        if not isinstance(keys, RenewedKeys) or keys.email != email:
            raise SignatureError(f"{keys_path.name} holds keys of another party", todo="restore it from a backup")
        keys._path = keys_path
        keys._read()
        return keys

    @property
    def generation(self) -> int:
        """Of the prekey in use: 0 for the first, later on the second in which it was made."""
        return self._generation

    @property
    def _renewals_path(self) -> Path:
        return self._path.with_name(f"{self._path.stem}-renewals.json")

    def _read(self) -> None:
        """Take what lies on the disk, where another process of this party may have renewed it."""
        self._stamp = self._path.stat().st_mtime_ns
        self._private_keys = syc.SyftPrivateKeys.from_jwks(read_json(self._path)["keys_jwk"])
        if not self._renewals_path.exists():
            self._generation, self._since_s, self._previous = 0, self._path.stat().st_mtime, ()
            return
        read = validate_section(_Renewals, read_json(self._renewals_path), source=self._renewals_path.name)
        self._generation, self._since_s, self._previous = read.generation, read.since_s, read.previous

    def refresh(self) -> None:
        """Take a renewal by another process, forget prekeys whose time is over, and renew one that is old."""
        if self._path.stat().st_mtime_ns != self._stamp:
            self._read()
        now = time.time()
        # A clock that was once far ahead must not keep a prekey for as long.
        latest_s = now + KEEP_DAYS * _DAY_S
        known = (old.model_copy(update={"until_s": min(old.until_s, latest_s)}) for old in self._previous)
        kept = tuple(old for old in known if old.until_s > now)
        if not 0 <= now - self._since_s <= ROTATE_DAYS * _DAY_S:
            self._previous = kept
            self.renew()
        elif kept != self._previous:
            self._write(self._generation, self._since_s, kept)

    def renew(self) -> None:
        """Replace the prekey; the one before still opens what was sealed to it for ``KEEP_DAYS``."""
        now = time.time()
        held = read_json(self._path)
        old = _Previous(prekey=held["keys_jwk"]["signed_prekey"], until_s=now + KEEP_DAYS * _DAY_S)
        made = syc.SyftRecoveryKey.generate().derive_keys().to_jwks()["signed_prekey"]
        previous = (old, *(p for p in self._previous if p.until_s > now and p.prekey != old.prekey))[:_MOST_PREVIOUS]
        # Whoever restored an older backup gets past what peers have seen, too: the clock went on.
        self._write(max(self._generation + 1, int(now)), now, previous)
        write_json(self._path, held | {"keys_jwk": held["keys_jwk"] | {"signed_prekey": made}})
        self._read()

    def _write(self, generation: int, since_s: float, previous: tuple[_Previous, ...]) -> None:
        renewals = _Renewals(generation=generation, since_s=since_s, previous=previous)
        write_json(self._renewals_path, renewals.model_dump(mode="json"))
        self._generation, self._since_s, self._previous = generation, since_s, previous

    def bundle_message(self) -> dict[str, Any]:
        """Return our public keys as syft sends them, with their generation and a signature over both."""
        bundle = self.get_public_bundle()
        signature = self.sign(_LABEL, _signed(self.email, self.generation, bundle))
        return {"public_encryption_bundle": bundle, "generation": self.generation, "signature": signature}

    def sign(self, label: bytes, data: bytes) -> str:
        """Return the identity key's Ed25519 signature over ``label`` and ``data``, in base64.

        *Guarantee*: nobody without the identity key makes another. *Assumption*: each kind of data has a label of its
        own that ends with a line break and begins no other one: no signature passes for one over another kind.
        """
        private = read_json(self._path)["keys_jwk"]["identity_key"]["d"]
        key = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(private + "=="))
        return base64.b64encode(key.sign(label + data)).decode()

    def decrypt(self, sender_email: str, envelope: bytes) -> bytes:
        try:
            return super().decrypt(sender_email, envelope)
        except Exception:
            for keys in self._older():
                with contextlib.suppress(Exception):  # syft's native module raises plain exceptions of many kinds
                    sender = self._get_parsed_peer_bundle(sender_email)
                    return syc.decrypt_message(self.email, keys, sender, syc.parse_envelope(envelope))
            raise

    def _older(self) -> list[Any]:
        if not self._previous:
            return []
        jwks, now = read_json(self._path)["keys_jwk"], time.time()
        usable = [previous.prekey for previous in self._previous if previous.until_s > now]
        return [syc.SyftPrivateKeys.from_jwks(jwks | {"signed_prekey": prekey}) for prekey in usable]


def checked_bundle(message: Any, *, email: str, pin: str, newest: int) -> tuple[dict[str, Any], int]:
    """Return a peer's keys out of what it left on the store, and their generation.

    *Guarantee*: they were signed by the pinned identity key, envelopes can be made with them, and no older generation
    than one that was seen comes back.
    *Assumption*: the pin is right, and at first contact the store shows the newest.

    Parameters
    ----------
    message : object
        Parsed JSON.
    pin : str
        The peer's pinned identity key, hex.
    newest : int
        The newest generation of the peer that we have seen.

    Raises
    ------
    SignatureError
        If they are not the peer's, or older than what we have seen.
    """
    kept = "Nothing was sent to it"
    try:
        bundle, generation = message["public_encryption_bundle"], message.get("generation", 0)
        # reading it checks the signatures of its keys, too
        keys = syc.SyftPublicKeyBundle.from_did_document(bundle)
        key = keys.identity_key_bytes.hex()
        # A peer can sign keys with which nobody has a secret (points of small order): no envelope could be made.
        anybody = syc.SyftRecoveryKey.generate().derive_keys()
        syc.encrypt_message(email, anybody, [syc.EncryptionRecipient(email, keys)], b"")
    except Exception as error:  # syft's native module raises plain exceptions of many kinds
        raise SignatureError(f"The encryption bundle of {email} on the store cannot be read", kept=kept) from error
    if key != pin:
        raise SignatureError(
            f"The store holds another encryption key for {email} than the one that is pinned",
            kept=kept,
            todo="ask them to read you their fingerprint over the phone",
        )
    if not isinstance(generation, int) or isinstance(generation, bool) or generation > _MOST_GENERATIONS:
        raise SignatureError(f"The generation of the encryption key of {email} is no number of keys", kept=kept)
    if generation < newest:
        raise SignatureError(
            f"The store shows an older encryption key of {email} than before",
            kept="The newer one is used on",
            todo=f"ask who runs the store; if {email} restored a backup, have it renew its key",
        )
    if generation and not is_signed(_LABEL, _signed(email, generation, bundle), message.get("signature"), pin=pin):
        raise SignatureError(f"The generation of {email}'s encryption key is not signed by it", kept=kept)
    return bundle, generation


def is_signed(label: bytes, data: bytes, signature: object, *, pin: str) -> bool:
    """Say whether the identity key with this pin made the signature, as :meth:`RenewedKeys.sign` does.

    *Guarantee*: never true for bytes, a label or a key other than those of the signing. *Assumption*: the pin is right.
    """
    if not isinstance(signature, str):
        return False
    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(pin))
        signer.verify(base64.b64decode(signature, validate=True), label + data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed(email: str, generation: int, bundle: dict[str, Any]) -> bytes:
    digest = sha256_hex(canonical_json(bundle))
    return canonical_json({"bundle": digest, "email": email, "generation": generation})
