"""Going through what a peer left in a box: each message of the peer's is taken once, and nothing else moves the count.

Whoever can write to the store, without any key, can put bytes in the place of a message, or where one is to come. So
only messages that the peer signed for that very place count as taken; of the others the peer is told
(:mod:`fedpriv.transport.taken`), and sends them again under new numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from fedpriv.errors import UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.transport.boxes import Message
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.messages import Box
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.quarantine import Quarantine
from fedpriv.transport.syncing import Clock, open_message
from fedpriv.transport.taken import MOST_GAPS, Taken, runs, taken_message

MOST_IN_A_PASS = 64
"""Messages of one peer that are handled before the next peer's turn comes."""

_MOST_UNREAD = 10_000
"""Places of one box that are remembered as unread, the first ones: the peer is told of few runs of them at a time."""

_AGAIN_SECONDS = 30.0
"""How often what could not be read is looked at again, and whether what we said of it still lies on the store."""


@dataclass(kw_only=True)
class _Place:
    """Where a peer's box was read up to in this process, whether to its end, and what there could not be read.

    ``told`` has the digests, by number, of what people were told of.
    """

    after: int = 0
    is_through: bool = True
    unread: set[int] = field(default_factory=set)
    told: dict[int, str] = field(default_factory=dict)


class BoxReader:
    """Reads one box of every peer.

    *Guarantee*: each message that its sender signed for its place is given at least once, even after a kill, or named
    to the sender as missing until it is sent again; nothing that others put there moves the count. *Assumption*: the
    sender uses no number twice, and runs again some day: what is missing only it can send.

    Parameters
    ----------
    fact : str
        Under which the journal has the number of the last message that was taken.
    """

    def __init__(
        self, connection: StoreConnection, keys: RenewedKeys, quarantine: Quarantine, *, box: Box, fact: str
    ) -> None:
        self._connection, self._keys, self._quarantine = connection, keys, quarantine
        self._journal = connection.journal
        self._box: Box = box
        self._fact = fact
        self._places: dict[str, _Place] = {}
        self._again = Clock(_AGAIN_SECONDS)
        self._said_again = Clock(_AGAIN_SECONDS)

    def read(self, peer: str, accept: Callable[[bytes], None]) -> None:
        """Give ``accept`` each new message of ``peer``; at most ``MOST_IN_A_PASS``, the others next time.

        What ``accept`` refuses with an :class:`~fedpriv.errors.UntrustedError` is noted, and counts as taken: the peer
        itself sent it so.
        """
        place, taken = self._places.setdefault(peer, _Place()), self._taken(peer)
        # Not before the end: behind whatever somebody puts there, however much, lies what the peer sent.
        if place.is_through and self._again.is_due(peer):
            place.after, place.unread = taken, set()
        messages = self._connection.boxes.messages_from(peer, self._box, after=max(place.after, taken))
        place.is_through = True
        for count, message in enumerate(islice(messages, MOST_IN_A_PASS), 1):
            place.is_through = count < MOST_IN_A_PASS
            try:
                content = open_message(self._keys, message)
            except UntrustedError as error:
                self._set_aside(peer, place, message, error.what)
                place.after = message.number
                continue
            try:
                accept(content)
            except UntrustedError as error:
                self._quarantine.add(peer, message.key, message.envelope, error.what)
            self._took(peer, taken, message.number)
            taken = place.after = message.number  # not before: what a full disk did not take is taken next time

    def acknowledge(self, peer: str) -> None:
        """Tell ``peer`` what it may delete, and what it is to send again.

        Where that is nothing new, it is looked now and then whether it still lies there: without it a sender waits for
        ever where a message of its was changed, and counts anew where it lost its journal, too.
        """
        place, number, gaps = self._places.get(peer, _Place()), self._taken(peer), self._gaps(peer)
        later = runs(n for n in place.unread if n > number)
        # Those that count as passed first: what lies further on may be anybody's, and is looked at again in any case.
        taken = Taken(number=number, missing=(*gaps, *later[: MOST_GAPS - len(gaps)]))
        if not number and not taken.missing:
            return
        said, fact = json.dumps([taken.number, taken.missing]), f"acknowledged/{peer}"
        is_new = self._journal.words(fact).get("") != said
        if not is_new and not self._said_again.is_due(peer):
            return
        word = taken_message(self._keys, peer, self._box, taken)
        if is_new or not self._connection.boxes.is_acknowledged(peer, word):
            self._connection.boxes.acknowledge(peer, word)
            self._journal.set({fact: said})

    def _set_aside(self, peer: str, place: _Place, message: Message, reason: str) -> None:
        """Note what lies in a message's place and is none of the peer's; the same is told once."""
        digest = sha256_hex(message.envelope or b"")
        if len(place.unread) < _MOST_UNREAD:
            place.unread.add(message.number)
        if place.told.get(message.number) != digest:
            if len(place.told) >= MOST_IN_A_PASS:
                place.told.clear()
            place.told[message.number] = digest
            self._quarantine.add(peer, message.key, message.envelope, reason)

    def _taken(self, peer: str) -> int:
        return self._journal.number(f"{self._fact}/{peer}")

    def _gaps(self, peer: str) -> list[tuple[int, int]]:
        noted = self._journal.words(f"gaps/{peer}").get("")
        return [(first, last) for first, last in json.loads(noted)] if noted else []

    def _took(self, peer: str, before: int, number: int) -> None:
        facts: dict[str, int | str] = {f"{self._fact}/{peer}": number}
        if number > before + 1:
            gaps = [*self._gaps(peer), (before + 1, number - 1)]
            if len(gaps) > MOST_GAPS:  # of too much a peer sends some again; of too little it would forget
                gaps[:2] = [(gaps[0][0], gaps[1][1])]
            facts[f"gaps/{peer}"] = json.dumps(gaps)
        self._journal.set(facts)
