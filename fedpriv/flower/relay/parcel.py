"""What one Flower message holds: a listing of each side's files, and as many files as fit. JSON and bytes, no pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from .mirror import Listing, RefusedError, Shelf, is_news, listing_as_json, listing_from_json, missing

VERSION = 1
PARCEL_BYTES = 64 * 2**20
"""Files in one message, if more than one: with 1 Mbit/s it is on its way for nine minutes."""

_LETTER, _FILES, _RAW = "letter", "files", "fedpriv.bytes"
_MOST_LETTER_BYTES = 32 * 2**20


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
    """

    sender: str
    recipient: str = ""
    left: Listing | None = None
    held: Listing = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    wait_s: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(len(data) for _, data in self.files)

    def to_records(self) -> RecordDict:
        """Return it as the content of a Flower message; Flower cuts files into pieces of 5 MB."""
        letter = {
            "fedpriv": VERSION,
            "sender": self.sender,
            "recipient": self.recipient,
            "left": None if self.left is None else listing_as_json(self.left),
            "held": listing_as_json(self.held),
            "files": [name for name, _ in self.files],
            "wait_s": self.wait_s,
        }
        arrays = {
            str(number): Array(dtype="uint8", shape=(len(data),), stype=_RAW, data=data)
            for number, (_, data) in enumerate(self.files)
        }
        records = RecordDict({_LETTER: ConfigRecord({"json": json.dumps(letter, separators=(",", ":"))})})
        if arrays:
            records[_FILES] = ArrayRecord(arrays)
        return records

    @classmethod
    def from_records(cls, records: RecordDict) -> Parcel:
        """Return what a Flower message holds.

        Raises
        ------
        RefusedError
            If it is none of ours, or of another version.
        """
        letter = _letter(records)
        if letter.get("fedpriv") != VERSION:
            raise RefusedError("the two sides run different versions of the relay: start the newer app on both")
        names, arrays = letter.get("files"), records.array_records.get(_FILES, {})
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != len(arrays):
            raise RefusedError("a message has other files than it says")
        left, wait_s = letter.get("left"), letter.get("wait_s")
        return cls(
            sender=str(letter.get("sender")),
            recipient=str(letter.get("recipient")),
            left=None if left is None else listing_from_json(left),
            held=listing_from_json(letter.get("held")),
            files=tuple((name, _bytes(arrays.get(str(number)))) for number, name in enumerate(names)),
            wait_s=float(wait_s) if isinstance(wait_s, int | float) and 0 <= wait_s <= 3600 else 0.0,
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


def _letter(records: RecordDict) -> dict[str, Any]:
    text = records.config_records.get(_LETTER, {}).get("json")
    if not isinstance(text, str) or len(text) > _MOST_LETTER_BYTES:
        raise RefusedError("a message has no letter, or too long a one")
    try:
        letter = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError("a message's letter is not JSON") from error
    if not isinstance(letter, dict):
        raise RefusedError("a message's letter is no object")
    return letter


def _bytes(array: Array | None) -> bytes:
    if array is None or array.stype != _RAW:
        raise RefusedError("a file in a message is not plain bytes")
    return bytes(array.data)
