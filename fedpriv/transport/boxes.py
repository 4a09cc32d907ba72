"""Boxes of messages: each party's own, one for each peer and direction, in which it counts what it puts.

Sequence numbers are the sender's own counter, so no wall clock decides what is new, and whoever waits for the next
message knows its name: one request says that there is none, two fetch it.
"""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedpriv.errors import TransportError, UntrustedError
from fedpriv.transport.journal import Journal
from fedpriv.transport.messages import MAX_MESSAGE_BYTES, Address, Box
from fedpriv.transport.store import Store
from fedpriv.transport.taken import MAX_TAKEN_BYTES, MOST_MESSAGES, Taken, hinted_number, read_taken

_SEQUENCE_DIGITS = 12
_LIST_SECONDS = 10.0
"""How often a box is listed for messages after one that never came: a number is lost when a put fails or a kill.

What a listing showed is gone through whole, however many gaps there are: else each thing that somebody puts between
two messages would cost its reader this long.
"""
_MOST_IN_A_BOX = 20_000
"""Things in a peer's box: over so many, what lies behind a gap is not looked for, and nobody else waits for it."""
_TIDY_SECONDS = 10.0
"""So long at a time is deleted in one box: others wait, and somebody may have put any number of things there."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a peer left in a box.

    Attributes
    ----------
    address, key : Address, str
        Where it lies, and its name on the store.
    envelope : bytes or None
        The encrypted message; None if it cannot be used.
    refusal : str
        Why not.
    """

    address: Address
    key: str
    envelope: bytes | None
    refusal: str = ""

    @property
    def number(self) -> int:
        """The sender's count of it."""
        return self.address.number


class Boxes:
    """The boxes of one party on the store, and those of its peers for it. Shared between threads.

    *Guarantee*: no number is used twice; a message of ours is deleted only if its recipient signed that it took it or
    that it has not got it; what is lost is told of.
    *Assumption*: the pins are right and the journal lies where nobody else writes. Envelopes are not opened here.

    Parameters
    ----------
    store : Store
        Where they lie.
    journal : Journal
        What this party sent and took, on its own disk.
    email : str
        Its address.
    pins : mapping of str to str
        Peer address to its pinned transport key (hex), which signs how far the peer took a box.
    """

    def __init__(self, store: Store, journal: Journal, *, email: str, pins: Mapping[str, str]) -> None:
        self._store, self._journal, self._me, self._pins = store, journal, email, pins
        self._listed: dict[str, tuple[float, list[int]]] = {}
        self._counted: set[tuple[str, Box]] = set()

    def _key(self, peer: str, *rest: str) -> str:
        return place_for(self._me, peer, *rest)

    def _key_from(self, peer: str, *rest: str) -> str:
        return place_for(peer, self._me, *rest)

    # -- reading ---------------------------------------------------------------------------------------------

    def messages_from(self, peer: str, box: Box, *, after: int) -> Iterator[Message]:
        """Give the messages that ``peer`` left for us after number ``after``, oldest first.

        Parameters
        ----------
        box : str
            ``"inbox"`` for proposed files (we are the owner), ``"outbox"`` for results (we are the watcher).
        """
        while after + 1 < MOST_MESSAGES:
            message = self._message(peer, box, after + 1)
            while message is None:
                later = self._first_after(peer, box, after)
                if later is None:
                    return
                message = self._message(peer, box, later)
                if message is None:  # its sender took it away since the listing, or the listing is not right
                    self._listed[self._key_from(peer, box)][1].remove(later)
            yield message
            after = message.number

    def _message(self, peer: str, box: Box, number: int) -> Message | None:
        key = self._key_from(peer, box, _numbered(number))
        address = Address(sender=peer, recipient=self._me, box=box, number=number)
        try:
            envelope = self._store.get(key, max_bytes=MAX_MESSAGE_BYTES)
        except UntrustedError as error:  # it is too large
            return Message(address=address, key=key, envelope=None, refusal=error.what)
        return None if envelope is None else Message(address=address, key=key, envelope=envelope)

    def _first_after(self, peer: str, box: str, after: int) -> int | None:
        """Return the first number after a gap; at most one listing in ``_LIST_SECONDS``, the first one at once."""
        folder, now = self._key_from(peer, box), time.monotonic()
        listed_s, numbers = self._listed.get(folder, (-_LIST_SECONDS, []))
        place = bisect.bisect_right(numbers, after)
        if place == len(numbers) and now - listed_s >= _LIST_SECONDS:
            self._listed[folder] = now, []  # also where there is too much
            found = self._store.entries(folder, most=_MOST_IN_A_BOX)
            numbers = [int(entry.name) for entry in found if is_numbered(entry.name)]
            numbers = numbers[: bisect.bisect_left(numbers, MOST_MESSAGES)]  # one left over would end the listing
            self._listed[folder] = now, numbers
            place = bisect.bisect_right(numbers, after)
        return numbers[place] if place < len(numbers) else None

    def acknowledge(self, peer: str, word: bytes) -> None:
        """Leave for ``peer`` what :func:`fedpriv.transport.taken.taken_message` made."""
        self._store.put(self._key(peer, "taken.json"), word)

    def is_acknowledged(self, peer: str, word: bytes) -> bool:
        """Say whether this very word lies there for ``peer``."""
        return self._read_word(self._key(peer, "taken.json")) == word

    # -- writing ---------------------------------------------------------------------------------------------

    def tidy(self, recipient: str, box: Box) -> dict[int, list[str]]:
        """Delete our messages that ``recipient`` said it took, and look whether the others are still there.

        What lies in our box and we did not put there is deleted, too.

        Returns
        -------
        dict[int, list[str]]
            What was noted (:func:`sent_fact`) of messages that are lost: the recipient says that it has not got them,
            or they are gone from the store, which was set back or emptied. Whoever sends it again forgets the note.
        """
        self._catch_up(recipient, box)
        noted = {int(n): text for n, text in self._journal.words(sent_fact(recipient, box)).items()}
        taken, folder = self._taken(recipient, box), self._key(recipient, box)
        lying = {int(entry.name) for entry in self._store.entries(folder) if is_numbered(entry.name)}
        last = self._journal.number(f"sent/{recipient}/{box}")  # after the listing: another process may have sent more
        end = time.monotonic() + _TIDY_SECONDS
        for number in sorted(lying):
            if time.monotonic() > end:
                break
            if taken.lacks(number) or taken.holds(number) or number > last:
                self._store.delete(f"{folder}/{_numbered(number)}")
        if taken.number > last:  # an older journal counted anew, and the store hid the word: nobody looked at any of it
            self._journal.raise_to(f"sent/{recipient}/{box}", taken.number)
            taken = Taken(missing=((1, taken.number),))
        self._journal.forget(sent_fact(recipient, box, number) for number in noted if taken.holds(number))
        return {
            number: json.loads(text)
            for number, text in sorted(noted.items())
            if taken.lacks(number) or (not taken.holds(number) and number not in lying)
        }

    def next_address(self, recipient: str, box: Box) -> Address:
        """Return where our next message to ``recipient`` will lie; no second one ever lies there."""
        self._catch_up(recipient, box)
        # The counter goes first: a number may be lost by a kill, but is never used twice.
        number = self._journal.count(f"sent/{recipient}/{box}")
        return Address(sender=self._me, recipient=recipient, box=box, number=number)

    def put_message(self, address: Address, data: bytes) -> None:
        """Put the envelope of a message of ours where :meth:`next_address` said.

        Raises
        ------
        TransportError
            If it is too large, or the store refuses it.
        """
        if len(data) > MAX_MESSAGE_BYTES:
            raise TransportError(
                f"A message to {address.recipient} would be larger than {MAX_MESSAGE_BYTES} bytes",
                kept="It was not sent",
            )
        self._store.put(self._key(address.recipient, address.box, _numbered(address.number)), data)

    def _catch_up(self, recipient: str, box: Box) -> None:
        """Once a process: go on counting behind what the store knows, where our journal was lost or is an older one.

        Below what the recipient took nobody looks; what lies there is ours, until it is seen to be nobody's.
        """
        if (recipient, box) in self._counted:
            return
        counter, word = f"sent/{recipient}/{box}", self._word_of(recipient)
        names = (entry.name for entry in self._store.entries(self._key(recipient, box)) if is_numbered(entry.name))
        # Whoever can write there can make the count begin anywhere below this, and never leave it without room.
        known = [number for number in map(int, names) if number < MOST_MESSAGES // 2]
        known.append(self._signed(word, recipient, box).number)
        if self._journal.number(counter) == 0:
            known.append(min(hinted_number(word, box), MOST_MESSAGES // 2))
        self._journal.raise_to(counter, max(known))
        self._counted.add((recipient, box))

    def _taken(self, peer: str, box: Box) -> Taken:
        """Return how far ``peer`` read a box of ours, as far as it signed that."""
        return self._signed(self._word_of(peer), peer, box)

    def _signed(self, word: bytes, peer: str, box: Box) -> Taken:
        me, pin = self._me, self._pins.get(peer, "")
        try:
            return read_taken(word, sender=me, recipient=peer, box=box, pin=pin)
        except UntrustedError:
            return Taken()

    def _word_of(self, peer: str) -> bytes:
        return self._read_word(self._key_from(peer, "taken.json"))

    def _read_word(self, key: str) -> bytes:
        try:
            return self._store.get(key, max_bytes=MAX_TAKEN_BYTES) or b"{}"
        except UntrustedError:  # it is too large, or no file
            return b"{}"


def place_for(sender: str, recipient: str, *rest: str) -> str:
    """Return the name of what ``sender`` leaves for ``recipient`` on the store."""
    return "/".join((sender, "to", recipient, *rest))


def sent_fact(recipient: str, box: Box, number: int | None = None) -> str:
    """Return the journal's name for what a message of ours brought, as a JSON list; without a number, its beginning."""
    return f"message/{recipient}/{box}/" + ("" if number is None else _numbered(number))


def _numbered(number: int) -> str:
    return f"{number:0{_SEQUENCE_DIGITS}d}"


def is_numbered(name: str) -> bool:
    return len(name) == _SEQUENCE_DIGITS and name.isascii() and name.isdigit()
