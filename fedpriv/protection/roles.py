"""The three roles in a protected sum, kept apart: who seals, who adds, who opens.

a domain       seals its update              holds the study key
the researcher adds the sealed updates       holds public parameters only
a domain       opens the sum, never a part   holds the study key
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import ValidationError

from fedpriv.errors import GatekeeperError, ProtectionError, UntrustedError
from fedpriv.files import canonical_json, parse_json, sha256_hex
from fedpriv.study.messages import AggregateManifest, SignedUpdate, UpdateHeader
from fedpriv.study.plan import ProtectionChoice, ProtectionLevel, Section, Sha256

MAX_KEY_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class SealedFile:
    """What sealing an update gives.

    Attributes
    ----------
    sha256 : str
        Digest of the container (hex).
    size_bytes : int
        Its size.
    residual : ndarray of float32, shape (P,), or None
        What rounding and clipping left out, to be added to the next update; it never leaves the domain.
    clipped : int
        How many parameters were beyond the clip.
    """

    sha256: str
    size_bytes: int
    residual: np.ndarray | None = field(default=None, repr=False)
    clipped: int = 0


class KeyParameters(Section):
    """The public facts of a study key; every member and the aggregator hold the same."""

    fedpriv_key: Literal[1] = 1
    level: ProtectionLevel
    study: Sha256
    clients: int
    bits: int
    clip: float
    scheme: dict[str, int | str]


@dataclass(frozen=True, kw_only=True)
class StudyKey:
    """The cohort's homomorphic key of one study.

    Attributes
    ----------
    level : str
        The protection level it is for.
    public : bytes
        What the aggregator needs: parameters as JSON, a newline, and public material; no secret. Empty for plain.
    secret : bytes
        What opens sums (and would open single updates, were it not for their masks).
    """

    level: ProtectionLevel
    public: bytes
    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the public bytes, which also bind the secret; empty for level plain."""
        return sha256_hex(self.public) if self.public else ""

    @property
    def parameters(self) -> KeyParameters:
        """The public parameters."""
        return read_parameters(self.public)

    def to_bytes(self) -> bytes:
        """Return the whole key, SECRET: the caller seals it to each member."""
        parts = {"public": self.public, "secret": self.secret}
        return canonical_json(
            {"level": self.level} | {name: base64.b64encode(part).decode() for name, part in parts.items()}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> StudyKey:
        """Read a key that :meth:`to_bytes` wrote.

        *Assumption*: the caller has checked who sealed and signed it; that it is whole is checked where it is used.

        Raises
        ------
        UntrustedError
            If it is not such a key.
        """
        body = parse_json(data, source="the study key", max_bytes=MAX_KEY_BYTES)
        try:
            public, secret = (base64.b64decode(body[name], validate=True) for name in ("public", "secret"))
            level = body["level"]
            known = set(body) == {"level", "public", "secret"} and level in ("sealed", "ckks", "plain")
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise UntrustedError("the study key is malformed", kept="It was not used") from error
        if not known or (level == "plain") != (not public):
            raise UntrustedError("the study key is malformed", kept="It was not used")
        if public and read_parameters(public).level != level:
            raise UntrustedError("the study key is for another level than it says", kept="It was not used")
        return cls(level=level, public=public, secret=secret)


class Sealer(Protocol):
    """A domain's half that turns one update into one container."""

    def seal(
        self, header: UpdateHeader, update: np.ndarray, path: Path, *, residual: np.ndarray | None = None
    ) -> SealedFile:
        """Weigh, protect and write one update.

        *Guarantee*: what is written is ``header.weight * update + residual`` at the level of ``header``, no more.
        *Assumption*: a domain seals one update only for each (study, round, attempt): masks are never used twice.

        Parameters
        ----------
        header : UpdateHeader
            What the update claims; goes into the container.
        update : ndarray of float32, shape (P,)
            The change of the adapter's parameters in sorted-name order.
        path : Path
            Where the container goes.
        residual : ndarray of float32, shape (P,), optional
            What the last sealing left out.

        Raises
        ------
        GatekeeperError
            If the update has a wrong shape, type or a value that is not finite.
        ProtectionError
            If it cannot be sealed as the plan asks.
        """
        ...


class Adder(Protocol):
    """The aggregator's half; made from public bytes, so it cannot read what it adds."""

    @property
    def key_id(self) -> str:
        """The id of the study key whose updates it can add."""
        ...

    def add(self, updates: Sequence[tuple[SignedUpdate, Path]], path: Path) -> tuple[str, int]:
        """Add sealed updates into one aggregate, block by block.

        *Guarantee*: needs and holds no key; every container is compared with its signed digest before it is parsed.
        *Assumption*: the signatures were verified by the caller (:func:`fedpriv.aggregation.aggregate_round`).

        Parameters
        ----------
        updates : sequence of (SignedUpdate, Path)
            Updates of one round, and where their containers lie.
        path : Path
            Where the aggregate goes.

        Returns
        -------
        tuple of str and int
            SHA-256 (hex) and size in bytes of the aggregate.

        Raises
        ------
        ContainerError
            If a container is not what was signed, or of other parameters.
        """
        ...


class Opener(Protocol):
    """A domain's half that opens a sum, and nothing but a sum."""

    def open(self, path: Path, *, manifest: AggregateManifest) -> np.ndarray:
        """Open an aggregate.

        *Guarantee*: the aggregate is the file that the manifest names, and as many updates are in it as it lists.
        *Assumption*: the caller verified the manifest's signatures (:func:`fedpriv.protection.verify_manifest`).

        Parameters
        ----------
        path : Path
            The aggregate's container.
        manifest : AggregateManifest
            What went into it.

        Returns
        -------
        ndarray of float64, shape (P,)
            ``Σ_k w_k d_k``, the weighted sum of the updates.

        Raises
        ------
        ContainerError
            If the file is not the one in the manifest, or its parameters differ.
        ProtectionError
            If the key does not fit, or the sum does not hold the updates that the manifest lists.
        """
        ...


def make_public(
    protection: ProtectionChoice, *, clients: int, study: str, scheme: dict[str, int | str], material: bytes = b""
) -> bytes:
    """Return a study key's public bytes: its parameters as one line of canonical JSON, then ``material``.

    Raises
    ------
    ProtectionError
        If there are fewer than two clients or ``study`` is not an id.
    """
    if not 2 <= clients <= 64:
        raise ProtectionError(f"a study key is for 2 to 64 domains, not {clients}")
    try:
        parameters = KeyParameters(
            level=protection.level,
            study=study,
            clients=clients,
            bits=protection.bits,
            clip=protection.clip,
            scheme=scheme,
        )
    except ValidationError as error:
        raise ProtectionError("a study key needs the id of its study") from error
    return canonical_json(parameters.model_dump(mode="json")) + b"\n" + material


def read_parameters(public: bytes) -> KeyParameters:
    """Return the parameters in a study key's public bytes.

    Raises
    ------
    UntrustedError
        If they are not what :func:`make_public` writes.
    """
    line = public.split(b"\n", 1)[0]
    try:
        body = parse_json(line, source="the study key's parameters", max_bytes=65536)
        if isinstance(body, dict) and body.get("fedpriv_key", 1) != 1:
            raise UntrustedError("the study key is of a newer version", kept="It was not used", todo="upgrade fedpriv")
        return KeyParameters.model_validate_json(line)
    except ValidationError as error:
        raise UntrustedError("the study key's parameters are malformed", kept="They were not used") from error


def public_material(public: bytes) -> bytes:
    """Return what follows the parameters in a study key's public bytes."""
    return public.split(b"\n", 1)[1] if b"\n" in public else b""


def require_choice(parameters: KeyParameters, protection: ProtectionChoice) -> None:
    """Check that a key was made for what the plan says.

    Raises
    ------
    ProtectionError
        If level, bits or clip differ.
    """
    made = (parameters.level, parameters.bits, parameters.clip)
    if made != (protection.level, protection.bits, protection.clip):
        raise ProtectionError("the study key was made for another protection than the plan's", kept="It was not used")


def require_header(header: UpdateHeader, *, level: str, key_id: str, study: str | None) -> None:
    """Check that an update's header is for this level, key and study (None: any, for level plain).

    Raises
    ------
    ProtectionError
        Naming what differs.
    """
    if header.level != level:
        raise ProtectionError(f"an update of level {header.level} cannot be treated at level {level}")
    if header.key_id != key_id:
        raise ProtectionError("an update was sealed for another study key", kept="It was not used")
    if study is not None and header.study != study:
        raise ProtectionError("the study key belongs to another study", kept="It was not used")


def weighted(header: UpdateHeader, update: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    """Return ``u = w d + e`` after checking the update's shape, type and values.

    Parameters
    ----------
    header : UpdateHeader
        With the weight ``w`` and the number of parameters ``P``.
    update : ndarray of float32, shape (P,)
        ``d``.
    residual : ndarray of float32, shape (P,), or None
        ``e``.

    Returns
    -------
    ndarray of float32, shape (P,)

    Raises
    ------
    GatekeeperError
        If a shape or type is wrong, or a value is not finite.
    """
    for name, array in (("update", update), ("residual", residual)):
        if array is None:
            continue
        if array.dtype != np.float32 or array.shape != (header.parameters,):
            what = f"the {name} is {array.dtype} {array.shape}, not float32 ({header.parameters},)"
            raise GatekeeperError(what, kept="Nothing was sealed")
        if not np.isfinite(array).all():
            raise GatekeeperError(f"the {name} holds values that are not finite", kept="Nothing was sealed")
    with np.errstate(over="ignore"):  # an overflow is found below
        product = update * np.float32(header.weight)
        if residual is not None:
            product += residual
    if not np.isfinite(product).all():
        raise GatekeeperError("the weighted update holds values that are not finite", kept="Nothing was sealed")
    return product


def aggregate_header(headers: Sequence[UpdateHeader]) -> dict[str, Any]:
    """Return the header of the aggregate of these updates: what they share, and whose they are."""
    common = headers[0].model_dump(mode="json", exclude={"member", "weight"})
    members = {header.member: header.weight for header in headers}
    return {"kind": "aggregate", **common, "members": members}


def update_header(header: UpdateHeader) -> dict[str, Any]:
    """Return the header of one sealed update's container."""
    return {"kind": "update", **header.model_dump(mode="json")}
