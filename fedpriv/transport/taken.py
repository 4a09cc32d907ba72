"""What a party says of a peer's box: up to which message it took, and which of those it never got.

It is signed: by a word that anybody could leave there, a sender would delete what nobody has read. Old words that a
store shows again do no harm: they are of fewer messages, and a number is never used twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field, ValidationError

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.files import canonical_json, parse_json
from fedpriv.study.section import Section
from fedpriv.transport.messages import Box
from fedpriv.transport.prekeys import RenewedKeys, is_signed

MOST_MESSAGES = 10**9
"""Over so many nothing is read: no honest sender gets there, wherever others make its count begin."""
MOST_GAPS = 100
"""Runs of missing numbers that are told."""

MAX_TAKEN_BYTES = 64 * 1024
_LABEL = b"fedpriv 1 taken\n"


class _Word(Section):
    sender: str
    recipient: str
    box: Box
    number: int = Field(ge=0, lt=MOST_MESSAGES)
    missing: tuple[tuple[int, int], ...] = Field(default=(), max_length=MOST_GAPS)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How far a box was read.

    Attributes
    ----------
    number : int
        The last message of the sender's that was taken; 0 if none was.
    missing : tuple of (int, int)
        First and last numbers of runs of which nothing was got that the sender had signed: they never came, or lie
        there changed. The last ones may be over ``number``.
    """

    number: int = 0
    missing: tuple[tuple[int, int], ...] = ()

    def lacks(self, number: int) -> bool:
        """Say whether the reader has not got this message, and does not wait for it any more."""
        return any(first <= number <= last for first, last in self.missing)

    def holds(self, number: int) -> bool:
        """Say whether it was taken."""
        return number <= self.number and not self.lacks(number)


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers, in their order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def taken_message(keys: RenewedKeys, sender: str, box: Box, taken: Taken) -> bytes:
    """Return the word of the party with these keys about the box of ``sender``, to be left for it on the store."""
    number = min(taken.number, MOST_MESSAGES - 1)
    word = _Word(
        sender=sender, recipient=keys.email, box=box, number=number, missing=taken.missing[:MOST_GAPS]
    ).model_dump(mode="json")
    # The number by itself is for fedpriv 0.1, and for a sender who lost its journal.
    return json.dumps({box: number, "word": word, "signature": keys.sign(_LABEL, canonical_json(word))}).encode()


def read_taken(data: bytes, *, sender: str, recipient: str, box: Box, pin: str) -> Taken:
    """Return what ``recipient`` said of the box of ``sender``.

    *Guarantee*: the recipient said so, of this very box, at some time. *Assumption*: the pin is right. The store may
    show an older word in place of the newest: it tells of fewer messages, and what it lacked was sent again since.

    Parameters
    ----------
    pin : str
        The recipient's pinned identity key, hex.

    Raises
    ------
    UntrustedError
        If it is not the recipient's word about this box.
    """
    said = parse_json(data, source="taken.json", max_bytes=MAX_TAKEN_BYTES)
    if not isinstance(said, dict) or "word" not in said:
        return Taken()
    try:
        word = _Word.model_validate(said["word"], strict=False)
    except ValidationError as error:
        raise UntrustedError(f"The acknowledgement of {recipient} is malformed", kept="Nothing was deleted") from error
    if not is_signed(_LABEL, canonical_json(said["word"]), said.get("signature"), pin=pin):
        raise SignatureError(f"The acknowledgement is not signed by {recipient}", kept="Nothing was deleted")
    if (word.sender, word.recipient, word.box) != (sender, recipient, box):
        raise UntrustedError("An acknowledgement is of another box than it lies for", kept="Nothing was deleted")
    return Taken(number=word.number, missing=word.missing)


def hinted_number(data: bytes, box: Box) -> int:
    """Return the number that is said without a signature: only for counting on from there, never for deleting."""
    try:
        said = parse_json(data, source="taken.json", max_bytes=MAX_TAKEN_BYTES)
    except UntrustedError:
        return 0
    number = said.get(box) if isinstance(said, dict) else None
    return number if isinstance(number, int) and 0 <= number < MOST_MESSAGES else 0
