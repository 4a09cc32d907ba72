"""What one message holds: a listing of each side's files as JSON, and as many files as fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .mirror import (
    ADDRESS,
    MOST_VERSIONS_BYTES,
    Listing,
    RelayError,
    Shelf,
    is_news,
    listing_as_json,
    listing_from_json,
    missing,
)

VERSION = 1
PARCEL_BYTES = 64 * 2**20
"""Files in one message, if more than one: with 1 Mbit/s it is on its way for nine minutes."""

_MOST_LETTER_BYTES, _MOST_WAIT_S = 32 * 2**20, 3600


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One message between the relays of a researcher and a domain.

    Attributes
    ----------
    sender, recipient : str
        Addresses; the recipient is empty as long as it is not known whose node it is.
    left : Listing or None
        All that the sender left for the recipient; None in a greeting and its answer, which bring no files.
    held : Listing
        The copies that the sender holds of what the recipient left for it.
    files : sequence of (str, bytes)
        Files of ``left``, in the order to write them.
    wait_s : float
        How long the recipient may wait for an answer of its party, seconds.
    versions : dict of str to str
        What other domains say of their software, by address.
    """

    sender: str
    recipient: str = ""
    left: Listing | None = None
    held: Listing = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    wait_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(len(data) for _, data in self.files)

    def letter(self) -> str:
        """Return everything but the bytes of the files, as JSON."""
        value = {
            "fedpriv": VERSION,
            "sender": self.sender,
            "recipient": self.recipient,
            "left": None if self.left is None else listing_as_json(self.left),
            "held": listing_as_json(self.held),
            "files": [name for name, _ in self.files],
            "wait_s": self.wait_s,
            "versions": self.versions,
        }
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def of(cls, letter: str, files: Sequence[bytes]) -> Parcel:
        """Return what came: a letter, and the bytes of its files in their order.

        Raises
        ------
        RelayError
            If it is none of ours, or of another version.
        """
        value = _parse(letter)
        if value.get("fedpriv") != VERSION:
            raise RelayError("the two sides run different versions of the relay: start the newer app on both")
        names, left, wait_s = value.get("files"), value.get("left"), value.get("wait_s")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != len(files):
            raise RelayError("a message has other files than it says")
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= _MOST_WAIT_S:
            raise RelayError("a message asks for no time to wait, or too long a one")
        return cls(
            sender=str(value.get("sender")),
            recipient=str(value.get("recipient")),
            left=None if left is None else listing_from_json(left),
            held=listing_from_json(value.get("held")),
            files=tuple(zip(names, files, strict=True)),
            wait_s=float(wait_s),
            versions=_versions(value.get("versions")),
        )


def pack(shelf: Shelf, left: Listing, held: Listing, most_bytes: int = PARCEL_BYTES) -> list[tuple[str, bytes]]:
    """Read the first of the files that the other side lacks: as many as fit into one message, and at least one.

    A file that was replaced since it was listed goes with the next message, with all that may refer to it.
    """
    packed: list[tuple[str, bytes]] = []
    size = 0
    for name in missing(left, held):
        data = shelf.read(name, left[name])
        if data is None and is_news(name):
            break
        if data is None:
            continue
        if packed and size + len(data) > most_bytes:
            break
        packed.append((name, data))
        size += len(data)
    return packed


def _versions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(said, str) for said in value.values()):
        raise RelayError("what domains say of their software is no text by address")
    if any(not ADDRESS.fullmatch(email) or len(said) > MOST_VERSIONS_BYTES for email, said in value.items()):
        raise RelayError("what domains say of their software is too long, or of nobody")
    return value


def _parse(letter: str) -> dict[str, Any]:
    if len(letter) > _MOST_LETTER_BYTES:
        raise RelayError("a message's letter is too long")
    try:
        value = json.loads(letter)
    except (ValueError, RecursionError) as error:
        raise RelayError("a message's letter is not JSON") from error
    if not isinstance(value, dict):
        raise RelayError("a message's letter is no object")
    return value
