"""A party's keys: signatures over messages and updates, and secrets between two parties.

Every use has its own label (``fedpriv 1 ...``), so that bytes made for one purpose are worthless for another.
"""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import ValidationError

from fedpriv.errors import ConfigError, ProtectionError, SignatureError, UntrustedError
from fedpriv.files import canonical_json, read_json, sha256_hex, write_json
from fedpriv.study.messages import Identity, Signed, SignedUpdate, UpdateHeader
from fedpriv.study.section import Section
from fedpriv.study.validation import in_words

if TYPE_CHECKING:
    from mnemonic import Mnemonic

MessageKind = Literal["ticket", "result", "decision", "identity", "consent", "shard", "versions"]
MessageT = TypeVar("MessageT", bound=Section)
P = ParamSpec("P")
T = TypeVar("T")

KEY_BYTES = 32
_RENEW = "restore the key file from its backup; a new key has a new fingerprint, which the cohort must pin again"


def _remembering(function: Callable[P, T]) -> Callable[P, T]:
    """Remember what a function of frozen messages gave for a few rounds of the largest cohort; errors are not kept."""
    return cast("Callable[P, T]", lru_cache(maxsize=2048)(function))


@_remembering
def fingerprint(identity: Identity) -> str:
    """Return the SHA-256 (hex) of a party's public keys, address and name: what the others pin.

    *Guarantee*: two identities that differ in any field have different fingerprints, unless SHA-256 is broken.
    """
    return sha256_hex(b"fedpriv 1 identity\n" + canonical_json(identity.model_dump(mode="json")))


def fingerprint_words(value: str) -> str:
    """Return the first 128 bits of a fingerprint as twelve English words (BIP-39), to compare over the phone.

    The words are as public as the fingerprint: they are no secret, and no wallet. The last one holds a checksum of
    four bits, so that 15 of 16 misheard words are noticed as such.

    *Assumption*: nobody can search 2^128 keys for one with the same first half.
    """
    return _mnemonic().to_mnemonic(bytes.fromhex(value[:32]))


def start_of_words(words: str) -> str:
    """Return the first 128 bits (32 hex digits) of the fingerprint whose words somebody read out.

    Case, commas and line breaks do not matter, and four letters of a word are enough: they are unique in the list.

    Raises
    ------
    ConfigError
        If there are not twelve words, one is not in the list (with the nearest one), or the checksum does not fit.
    """
    book = _mnemonic()
    given = [book.expand_word(word) for word in words.lower().replace(",", " ").split()]
    for number, word in enumerate(given, 1):
        if word not in book.wordlist:
            near = get_close_matches(word, book.wordlist, n=1)
            what = f"Word {number}, {word[:30]!r}, is not one of the 2048 words that fingerprints are read in"
            raise ConfigError(what, todo=f"is it {near[0]!r}? ask for it again" if near else "ask for it again")
    if len(given) != 12:
        raise ConfigError(f"A fingerprint has 12 words, not {len(given)}", todo="ask for all of them again")
    if not book.check(" ".join(given)):
        raise ConfigError(
            "These are words of the list, but not twelve that belong together: one was misheard, or two changed places",
            kept="Nothing was compared",
            todo="read them back to each other, word by word",
        )
    return bytes(book.to_entropy(given)).hex()


@cache
def _mnemonic() -> Mnemonic:
    from mnemonic import Mnemonic

    return Mnemonic("english")


@dataclass(frozen=True, kw_only=True)
class IdentityKeys:
    """The private keys of one party. Never leaves the party; only :attr:`identity` does.

    Attributes
    ----------
    email : str
        The party's address.
    name : str
        A short name of lower-case letters, digits and dashes.
    transport_key : str
        Identity key of the party's transport key bundle, 64 hex digits.
    """

    email: str
    name: str
    transport_key: str
    _signing: Ed25519PrivateKey = field(repr=False)
    _agreement: X25519PrivateKey = field(repr=False)

    @classmethod
    def create(cls, email: str, name: str, transport_key: str) -> IdentityKeys:
        """Make new keys from the system's randomness.

        Raises
        ------
        ConfigError
            If the address, the name or the transport key is not of the form that an identity needs.
        """
        keys = cls(
            email=email,
            name=name,
            transport_key=transport_key,
            _signing=Ed25519PrivateKey.generate(),
            _agreement=X25519PrivateKey.generate(),
        )
        _ = keys.identity
        return keys

    @property
    def identity(self) -> Identity:
        """The public half."""
        try:
            return Identity(
                email=self.email,
                name=self.name,
                signing_key=_b64(self._signing.public_key().public_bytes_raw()),
                agreement_key=_b64(self._agreement.public_key().public_bytes_raw()),
                transport_key=self.transport_key,
            )
        except ValidationError as error:
            raise ConfigError(f"these keys cannot be used: {in_words(error)}", todo="correct it") from error

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public half, 64 hex digits."""
        return fingerprint(self.identity)

    def save(self, path: Path) -> None:
        """Write the keys to ``path``, readable by the owner only (mode 0600), atomically."""
        body = {
            "fedpriv_keys": 1,
            "email": self.email,
            "name": self.name,
            "transport_key": self.transport_key,
            "signing_key": _b64(self._signing.private_bytes_raw()),
            "agreement_key": _b64(self._agreement.private_bytes_raw()),
        }
        write_json(path, {**body, "digest": _file_digest(body)})

    @classmethod
    def load(cls, path: Path, *, email: str | None = None) -> IdentityKeys:
        """Read keys that :meth:`save` wrote; with ``email``, those of this address.

        *Guarantee*: a file that others could read, or that changed by accident, is refused.
        *Assumption*: the digest finds accidents, not a person who may write the file.

        Raises
        ------
        ConfigError
            If the file is missing, readable by others, damaged, of another version, or of another address.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                what = f"the key file {path.name} can be read by others (mode {mode:04o})"
                raise ConfigError(what, kept="It was not used", todo=f"chmod 600 {path} if nobody else has read it")
            body = read_json(path, max_bytes=65536)
        except PermissionError as error:  # the keys are whole: who restores or renews them here makes it worse
            todo = f"run this as the user that owns {path.parent}; if root made it by mistake, chown it to that user"
            raise ConfigError(f"the key file {path} may not be read by this user", todo=todo) from error
        except (OSError, UntrustedError) as error:
            raise ConfigError(f"the key file {path} cannot be read ({error})", todo=_RENEW) from error
        digest = body.pop("digest", None) if isinstance(body, dict) else None
        if digest is None or digest != _file_digest(body):
            raise ConfigError(f"the key file {path} is damaged", kept="It was not used", todo=_RENEW)
        if body.get("fedpriv_keys") != 1:
            raise ConfigError(f"the key file {path} is of another version", todo="upgrade fedpriv")
        try:
            keys = cls(
                email=body["email"],
                name=body["name"],
                transport_key=body["transport_key"],
                _signing=Ed25519PrivateKey.from_private_bytes(_unb64(body["signing_key"])),
                _agreement=X25519PrivateKey.from_private_bytes(_unb64(body["agreement_key"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the key file {path} holds no usable keys", todo=_RENEW) from error
        if email not in (None, keys.email):
            what = f"the keys in {path} are those of {keys.email}, not of {email}"
            todo = f"write {keys.email} as the address again; another address needs a new folder with keys of its own"
            raise ConfigError(what, kept="Nothing was changed", todo=todo)
        _ = keys.identity
        return keys

    def sign_bytes(self, data: bytes) -> str:
        """Return the Ed25519 signature of ``data``, URL-safe base64; callers put a label in front of ``data``."""
        return _b64(self._signing.sign(data))

    def own_secret(self, purpose: bytes, study: str) -> bytes:
        """Return 32 bytes that only this party can derive, for one purpose in one study; the same ones each time."""
        info = b"fedpriv 2 own\n" + canonical_json([purpose.decode(), study, self.fingerprint])
        return derive(self._agreement.private_bytes_raw(), info, KEY_BYTES)

    def agree(self, public_key: bytes) -> bytes:
        """Return the raw X25519 secret (32 bytes) shared with ``public_key``; only ever use it through HKDF.

        Raises
        ------
        UntrustedError
            If ``public_key`` is not 32 bytes, or is a low-order point, which would make the secret known to all.
        """
        try:
            return self._agreement.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError as error:
            raise UntrustedError(
                "an agreement key is not a usable point", kept="Nothing was derived from it"
            ) from error


def verify_bytes(identity: Identity, signature: str, data: bytes, *, what: str) -> None:
    """Check :meth:`IdentityKeys.sign_bytes`'s signature of ``data``; ``what`` is its name in the message.

    Raises
    ------
    SignatureError
        If it is not ``identity``'s signature of ``data``.
    """
    try:
        raw = _unb64(signature, length=64)
        Ed25519PublicKey.from_public_bytes(key_of(identity.signing_key)).verify(raw, data)
    except (InvalidSignature, ValueError, UntrustedError) as error:
        raise SignatureError(f"the signature of {what} does not match", kept="It was not used") from error


def sign(keys: IdentityKeys, kind: MessageKind, payload: Section) -> Signed:
    """Sign a message: Ed25519 over ``fedpriv 1 KIND``, a newline and the payload's canonical JSON."""
    body = payload.model_dump(mode="json")
    signature = keys.sign_bytes(_message_bytes(kind, body))
    return Signed(kind=kind, payload=body, signer=keys.fingerprint, signature=signature)


def open_signed(signed: Signed, *, kind: MessageKind, identity: Identity, model: type[MessageT]) -> MessageT:
    """Return the message in ``signed`` after checking who signed it, and what it is.

    *Guarantee*: what is returned was signed as ``kind`` by the holder of ``identity``'s signing key.
    *Assumption*: ``identity`` is the pinned one; freshness is the caller's concern (messages carry study and round).

    Parameters
    ----------
    signed : Signed
        The message as received.
    kind : str
        What it must be.
    identity : Identity
        Who must have signed it.
    model : type
        The pydantic class of the message; unknown keys and wrong types are refused.

    Raises
    ------
    SignatureError
        If kind, signer or signature does not match.
    UntrustedError
        If the payload is not a valid ``model``.
    """
    if signed.kind != kind:
        raise SignatureError(f"a message is a {signed.kind}, not a {kind}", kept="It was not used")
    if signed.signer != fingerprint(identity):
        raise SignatureError(f"a {kind} was not signed by {identity.email}", kept="It was not used")
    try:
        body = canonical_json(signed.payload)
        data = _message_bytes(kind, signed.payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise SignatureError(f"a {kind} cannot be written as JSON", kept="It was not used") from error
    verify_bytes(identity, signed.signature, data, what=f"a {kind}")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise UntrustedError(
            f"a {kind} of {identity.email} is wrong: {in_words(error)}", kept="It was not used"
        ) from error


def sign_update(keys: IdentityKeys, header: UpdateHeader, container_sha256: str, container_bytes: int) -> SignedUpdate:
    """Sign a sealed update: its header together with the digest and size (bytes) of its container.

    Raises
    ------
    ProtectionError
        If the header names another member than the holder of ``keys``.
    """
    if header.member != keys.email:
        raise ProtectionError(f"an update of {header.member} cannot be signed by {keys.email}")
    signature = keys.sign_bytes(_update_bytes(header, container_sha256, container_bytes))
    return SignedUpdate(
        header=header, container_sha256=container_sha256, container_bytes=container_bytes, signature=signature
    )


@_remembering
def verify_update(signed: SignedUpdate, identity: Identity) -> None:
    """Check that ``identity`` signed this header for this container.

    A good signature is not computed again for an equal update and an equal identity: a domain meets every update of a
    round twice, when it confirms their sum and when it opens it.

    Raises
    ------
    SignatureError
        If the header names another member, or the signature does not match.
    """
    if signed.header.member != identity.email:
        raise SignatureError(f"an update of {signed.header.member} was offered as that of {identity.email}")
    data = _update_bytes(signed.header, signed.container_sha256, signed.container_bytes)
    verify_bytes(identity, signed.signature, data, what=f"{identity.email}'s update")


def pairwise_secret(keys: IdentityKeys, other: Identity, study: str) -> bytes:
    """Return the 32 secret bytes that two members share for one study; both compute the same ones.

    *Guarantee*: known to the two only; bound to both complete identities and to the study.
    *Assumption*: ``other`` is the pinned identity.

    Raises
    ------
    ProtectionError
        If ``other`` is the holder of ``keys``.
    UntrustedError
        If the agreement key of ``other`` is unusable, such as a low-order point.
    """
    own = keys.identity
    if own.agreement_key == other.agreement_key:
        raise ProtectionError(f"{own.email} and {other.email} have the same agreement key")
    shared = keys.agree(key_of(other.agreement_key))
    pair = sorted([fingerprint(own), fingerprint(other)])
    return derive(shared, b"fedpriv 1 pair\n" + canonical_json([study, *pair]), KEY_BYTES)


def derive(secret: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA256 of ``secret`` for the purpose ``info`` (RFC 5869, no salt)."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def _message_bytes(kind: str, body: object) -> bytes:
    return b"fedpriv 1 " + kind.encode() + b"\n" + canonical_json(body)


def _update_bytes(header: UpdateHeader, container_sha256: str, container_bytes: int) -> bytes:
    body = {
        "header": header.model_dump(mode="json"),
        "container_sha256": container_sha256,
        "container_bytes": container_bytes,
    }
    return _message_bytes("update", body)


def key_of(text: str) -> bytes:
    """Return the 32 bytes of a public key in URL-safe base64, or raise UntrustedError."""
    try:
        return _unb64(text)
    except ValueError as error:
        raise UntrustedError("a public key is not 32 bytes in base64", kept="It was not used") from error


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _unb64(text: str, *, length: int = KEY_BYTES) -> bytes:
    """Decode URL-safe base64 of exactly ``length`` bytes in its one canonical spelling, or raise ValueError."""
    try:
        data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error
    if len(data) != length or _b64(data) != text:
        raise ValueError(f"not {length} bytes in base64")
    return data


def _file_digest(body: dict[str, object]) -> str:
    return sha256_hex(b"fedpriv 1 key file\n" + canonical_json(body))
