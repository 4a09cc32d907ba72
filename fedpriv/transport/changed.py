"""What a reader says of blobs that lie on the store otherwise than they were left: their sender puts its copies back.

A word names objects and the digests of what lies there. It is not signed.

*Guarantee*: by a word, whoever wrote it, a sender takes away nothing but what it puts back at once from its own copy.
*Assumption*: it has that copy, and runs. Whoever can write a false word can as well delete what it names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from fedpriv.errors import UntrustedError
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section
from fedpriv.transport.store import Store

CHANGED_FILE = "changed.json"
MOST_NAMED = 64

_MAX_WORD_BYTES = 32 * 1024
_NAME = "[a-z0-9][a-z0-9.-]{0,160}"
Place = Annotated[str, StringConstraints(pattern=rf"^(blobs/{_NAME}|parts/{_NAME}/[0-9]{{5}})$")]
"""Of an object, below what its sender leaves for one recipient."""


class _Word(Section):
    objects: dict[Place, Sha256 | Literal[""]] = Field(max_length=MOST_NAMED)


def changed_word(objects: dict[str, str]) -> bytes:
    """Return the word about objects by place, each with the digest of what lies there; empty: what cannot be read."""
    return _Word(objects=objects).model_dump_json().encode()


def read_changed(store: Store, key: str) -> dict[str, str]:
    """Return what a recipient named under ``key``; what is no such word names nothing."""
    try:
        data = store.get(key, max_bytes=_MAX_WORD_BYTES)
        return {} if data is None else dict(_Word.model_validate_json(data).objects)
    except (UntrustedError, ValidationError):
        return {}


def blob_of(place: str) -> str:
    """Return the name of the blob that an object is, or is a part of."""
    kind, name = place.split("/")[:2]
    return name if kind == "blobs" else name.rpartition(".")[0]
