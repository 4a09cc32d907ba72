"""The study key: what a cohort's updates are protected with, made by one member and sealed to each other one."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, ValidationError

from fedpriv.errors import UntrustedError
from fedpriv.files import canonical_json, parse_json, sha256_hex
from fedpriv.protection.keys import KEY_BYTES
from fedpriv.study.averaging import Turn
from fedpriv.study.names import Sha256
from fedpriv.study.plan import MAX_COHORT
from fedpriv.study.protection_choice import ProtectionLevel, SecurityLevel
from fedpriv.study.section import Section

MAX_KEY_BYTES = 8 * 2**20
MAX_SEALED_KEY_BYTES = MAX_KEY_BYTES + 2**16
"""Of a key, or of its public half, as it travels: sealed to one member, and signed."""
_MAX_LINE_BYTES = 65536
_KEPT = "It was not used"


class GroupParameters(Section):
    """How one group of parameters is protected; zeros where a level has no such thing."""

    level: ProtectionLevel
    bits: int
    turn: Turn = Field(description="sent in every round (0), in odd ones (1) or in even ones (2)")
    choice: int = Field(ge=0, le=16, description="sent so in rounds of so many bits only; 0: in all")
    parameters: int = Field(ge=1)
    digits: int
    plain_bits: int
    dropped_bits: int
    prime: str


class KeyParameters(Section):
    """The public facts of a study key; every member and the aggregator hold the same."""

    fedpriv_key: Literal[4] = 4
    study: Sha256
    generation: int = Field(ge=1, le=1000, description="1, and one more for each key made in place of a retired one")
    clients: int = Field(ge=2, le=MAX_COHORT, description="most updates in a sum")
    security: SecurityLevel
    groups: tuple[GroupParameters, ...] = Field(min_length=1, max_length=256)
    commitment: Sha256 = Field(description="digest of the secrets")


@dataclass(frozen=True, kw_only=True)
class StudyKey:
    """One generation of a study's key.

    Attributes
    ----------
    public : bytes
        What the aggregator needs: parameters as one line of canonical JSON, a newline, and the public CKKS key if
        there is such a group; no secret.
    secrets : mapping of str to bytes
        ``tag`` and, for each group that is encrypted, its secret (``group-0``, ...): 32 bytes at level ``sealed``. They
        open sums, and would open single updates, were it not for their masks.
    """

    public: bytes
    secrets: Mapping[str, bytes] = field(repr=False)

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the public bytes, which also bind the secrets."""
        return sha256_hex(self.public)

    @property
    def parameters(self) -> KeyParameters:
        """The public parameters."""
        return read_parameters(self.public)

    @property
    def generation(self) -> int:
        """1 for a study's first key."""
        return self.parameters.generation

    def to_bytes(self) -> bytes:
        """Return the whole key, SECRET: the caller seals it to each member."""
        secrets = {name: base64.b64encode(secret).decode() for name, secret in self.secrets.items()}
        return canonical_json({"public": base64.b64encode(self.public).decode(), "secrets": secrets})

    @classmethod
    def from_bytes(cls, data: bytes) -> StudyKey:
        """Read a key that :meth:`to_bytes` wrote.

        *Guarantee*: its public and secret halves belong together.
        *Assumption*: the caller has checked who sealed and signed it.

        Raises
        ------
        UntrustedError
            If it is not such a key.
        """
        body = parse_json(data, source="the study key", max_bytes=MAX_KEY_BYTES)
        try:
            public = base64.b64decode(body["public"], validate=True)
            secrets = {str(k): base64.b64decode(v, validate=True) for k, v in body["secrets"].items()}
            known = set(body) == {"public", "secrets"}
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise UntrustedError("the study key is malformed", kept=_KEPT) from error
        key = cls(public=public, secrets=secrets)
        short = ["tag", *(secret_name(i) for i, g in enumerate(key.parameters.groups) if g.level == "sealed")]
        if not known or any(len(secrets.get(name, b"")) != KEY_BYTES for name in short):
            raise UntrustedError("the study key is malformed", kept=_KEPT)
        if not hmac.compare_digest(key.parameters.commitment, commitment(secrets)):
            raise UntrustedError("the public and the secret half of the study key do not fit", kept=_KEPT)
        return key


def secret_name(index: int) -> str:
    """Return the name of a group's secret in :attr:`StudyKey.secrets`."""
    return f"group-{index}"


def commitment(secrets: Mapping[str, bytes]) -> str:
    """Return the SHA-256 (hex) that ties a key's public bytes to its secrets."""
    return sha256_hex(b"fedpriv 2 study key\n" + canonical_json({k: sha256_hex(v) for k, v in secrets.items()}))


def public_bytes(parameters: KeyParameters, material: bytes = b"") -> bytes:
    """Return a key's public bytes: see :class:`StudyKey`."""
    return canonical_json(parameters.model_dump(mode="json")) + b"\n" + material


def read_parameters(public: bytes) -> KeyParameters:
    """Return the parameters in a study key's public bytes.

    Raises
    ------
    UntrustedError
        If they are not what :func:`public_bytes` writes.
    """
    line = public.split(b"\n", 1)[0]
    body = parse_json(line, source="the study key's parameters", max_bytes=_MAX_LINE_BYTES)
    if isinstance(body, dict) and body.get("fedpriv_key", 4) != 4:
        raise UntrustedError(
            "the study key is of another version", kept=_KEPT, todo="run the same version of fedpriv at all parties"
        )
    try:
        return KeyParameters.model_validate_json(line)
    except ValidationError as error:
        raise UntrustedError("the study key's parameters are malformed", kept="They were not used") from error


def public_material(public: bytes) -> bytes:
    """Return what follows the parameters in a study key's public bytes."""
    return public.split(b"\n", 1)[1] if b"\n" in public else b""
