"""Which versions this software speaks, stated and signed by a party, and read from another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import fedpriv
from fedpriv.errors import UnknownVersionError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import container, envelope, study_key
from fedpriv.protection.keys import IdentityKeys, open_signed, sign
from fedpriv.study import Identity, Progress, RequestDecision, Result, Signed, Ticket
from fedpriv.study.plan import Plan
from fedpriv.study.section import Section
from fedpriv.study.shard import ShardStatement
from fedpriv.study.versions import MAX_VERSIONS_BYTES, SpokenVersions

DERIVATIONS = 3
"""Raised with every change of what is derived, or of the label it is derived under (docs/protocol.md)."""

STORE_LAYOUT = 1
"""Raised with every change of what lies on a store and where: bundles of prekeys, messages with their padding and what
binds them to their places, parts of blobs, acknowledgements (:mod:`fedpriv.transport`)."""

_MESSAGES: tuple[type[Section], ...] = (Ticket, Result, RequestDecision, Progress, ShardStatement, Plan)


def spoken_versions(member: str) -> SpokenVersions:
    """Return what this software speaks, as the party ``member`` says it.

    ``messages`` is a digest of the names, kinds and choices of all fields of all messages and plans: a party refuses a
    field that it does not know, so one that has another form of them is not understood.
    """
    return SpokenVersions(
        member=member,
        fedpriv=fedpriv.__version__,
        protocol={
            "container": container.VERSION,
            "study key": str(study_key.KeyParameters.model_fields["fedpriv_key"].default),
            "box": envelope.MAGIC.decode(),
            "derivations": str(DERIVATIONS),
            "store layout": str(STORE_LAYOUT),
            "messages": messages_digest(),
        },
    )


@cache
def messages_digest() -> str:
    """Return eight hex digits that depend on the form of every message and of the plan, and on no wording."""
    forms = {model.__name__: sorted(set(_shape(model.model_json_schema(), ""))) for model in _MESSAGES}
    return sha256_hex(b"fedpriv 1 messages\n" + canonical_json(forms))[:8]


def _shape(schema: Any, place: str) -> Iterator[str]:
    """Yield one line for each property, type and choice in a JSON schema."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("properties", "$defs"):
                for name, inner in value.items():
                    yield f"{place}/{name}"
                    yield from _shape(inner, f"{place}/{name}")
            elif key in ("enum", "const", "type", "$ref", "required"):
                yield f"{place}: {key} {canonical_json(value).decode()}"
            elif key not in ("description", "title", "default", "examples"):
                yield from _shape(value, f"{place}/{key}" if isinstance(value, dict | list) else place)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _shape(inner, place)


def signed_versions(keys: IdentityKeys) -> bytes:
    """Return what this software speaks, signed by the party that runs it, as it is put on the store."""
    return canonical_json(sign(keys, "versions", spoken_versions(keys.email)).model_dump(mode="json"))


def parse_versions(data: bytes, identity: Identity) -> SpokenVersions:
    """Read what another party says of its software.

    *Guarantee*: it was said by the holder of ``identity``'s signing key.
    *Assumption*: the store may show what was said earlier: then parties are held to be apart that are not, or notice it
    later, at a container of the other version. Nothing is opened or trained wrongly by it.

    Raises
    ------
    SignatureError
        If somebody else signed it.
    UntrustedError
        If it cannot be read.
    """
    what = f"What {identity.email} says of its version on the store"
    if len(data) > MAX_VERSIONS_BYTES:
        raise UntrustedError(f"{what} is too long", kept="It was not read")
    try:
        signed = Signed.model_validate_json(data)
    except ValueError as error:
        raise UntrustedError(f"{what} cannot be read", kept="It was not used") from error
    spoken = open_signed(signed, kind="versions", identity=identity, model=SpokenVersions)
    if spoken.member != identity.email:
        raise UntrustedError(f"{what} is about another party", kept="It was not used")
    return spoken


def read_versions(read: Callable[[], bytes | None], identity: Identity, *, kept: str) -> SpokenVersions | None:
    """Return what another party says of its software where it left it; None if nothing lies there.

    *Guarantee* and *assumption*: those of :func:`parse_versions`.

    Parameters
    ----------
    read : Callable[[], bytes or None]
        Reads it from the store.
    kept : str
        What an error says was kept.

    Raises
    ------
    UnknownVersionError
        If it is not the party's, or cannot be read: somebody changed it.
    """
    try:
        data = read()
        return None if data is None else parse_versions(data, identity)
    except UntrustedError as error:
        todo = f"wait a minute: {identity.email} puts it back while it runs; else see who can write there"
        raise UnknownVersionError(error.what, kept=kept, todo=todo) from error
