"""The researcher's side of all links: greets SuperNodes, sends them what is theirs, and writes down what they bring.

It keeps no state on disk: after a start, each domain says which files it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .mirror import Listing, RelayError, Shelf, is_news, missing
from .parcel import Parcel, pack

_LOOK_S, _NODES_S, _PULL_S = 0.1, 2.0, 0.3
"""How often the exchange folder, the list of SuperNodes and the answers are looked at."""

_WAITS_S, _IDLE_S = (20.0, 60.0), (3.0, 60.0)
"""How long a domain's answer is waited for in one message, and between two looks at a domain that owes none: longer
from one to the next in which nothing came. Every message is a process of a second at the domain."""

_AGAIN_S, _LATE_S = 5.0, 60.0
"""From an error to the next greeting, and from when an answer is due until it is asked what became of it."""

_TTL_S, _SLOWEST_BYTES_S = 900.0, 64 * 1024
"""How long Flower keeps a message, and the slowest link that its size is reckoned with."""


@dataclass(kw_only=True)
class Node:
    """A SuperNode, and what is known of the domain behind it.

    Attributes
    ----------
    domain : str
        Its address; empty before the first answer.
    held : Listing
        The copies that it holds of the researcher's files.
    asked : dict of str to float
        Messages without an answer so far, and when each was late.
    owes : bool
        Whether it got something and has not answered yet.
    wait_s, pause_s, next_s : float
        How long its domain is waited for; the time between two looks, and the next one.
    """

    domain: str = ""
    held: Listing = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    owes: bool = False
    wait_s: float = _WAITS_S[0]
    pause_s: float = _IDLE_S[0]
    next_s: float = 0.0


class Post(Protocol):
    """The way to SuperNodes, which may lose, delay or repeat what it is given."""

    def nodes(self) -> set[int]:
        """Return the numbers of those that are there."""
        ...

    def send(self, node: int, parcel: Parcel, ttl_s: float) -> str | None:
        """Send a parcel that is kept so long for the node; return the message's name, or None if it was not taken."""
        ...

    def answers(self, names: Sequence[str]) -> Iterable[tuple[str, Parcel | str]]:
        """Give the answers that came, by the names of the messages: a parcel, or what went wrong."""
        ...

    def say(self, sentence: str) -> None:
        """Tell people."""
        ...


class Relay:
    """The researcher's side of all links.

    Parameters
    ----------
    post : Post
        The way to the SuperNodes.
    exchange : Path
        The researcher's exchange folder.
    researcher : str
        Their address.
    waits : bool
        Whether domains work beside their SuperNodes and are waited for; in a simulation they work in them.
    late_s : float, optional
        From when an answer is due until it is asked what became of it, where one process answers for many.

    Attributes
    ----------
    messages, bytes_down, bytes_up : int
        What was sent so far, and bytes of files to and from domains.
    heard_s : float
        When the last answer came, on the monotonic clock; at first, when it began.
    """

    def __init__(
        self, post: Post, exchange: Path, researcher: str, *, waits: bool = True, late_s: float | None = None
    ) -> None:
        self._post, self._exchange, self._researcher = post, exchange, researcher
        self._waits, self._late_s = waits, _LATE_S if late_s is None else late_s
        self._nodes: dict[int, Node] = {}
        self._looked_s = self._pulled_s = 0.0
        self.messages = self.bytes_down = self.bytes_up = 0
        self.heard_s = time.monotonic()

    def run(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Carry files until ``is_over`` says so."""
        while not is_over():
            try:
                self._look_for_nodes()
                self._take_answers()
                for number, node in self._nodes.items():
                    self._tend(number, node)
            except OSError as error:  # the exchange folder: a full disk, rights
                self._post.say(f"the exchange folder: {error}")
                time.sleep(_AGAIN_S)
            time.sleep(_LOOK_S)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _look_for_nodes(self) -> None:
        if time.monotonic() - self._looked_s < _NODES_S:
            return
        online = self._post.nodes()
        for number in set(self._nodes) - online:
            self._post.say(f"{self._nodes.pop(number).domain or number}: its SuperNode is gone")
        for number in online - set(self._nodes):
            self._nodes[number] = Node()
        self._looked_s = time.monotonic()

    def _tend(self, number: int, node: Node) -> None:
        """Send a node what it needs: a greeting, files, a question whether there is something, or nothing yet."""
        now = time.monotonic()
        late = bool(node.asked) and now > max(node.asked.values())
        if late or (not node.domain and not node.asked and now >= node.next_s):
            # A node does one thing after the other: if it answers this, what was asked before is lost.
            self._send(number, node, Parcel(sender=self._researcher))
        elif node.domain and not node.asked:
            shelf = Shelf(root=self._exchange, owner=self._researcher, reader=node.domain)
            left = shelf.listing()
            if not any(map(is_news, missing(left, node.held))) and now < node.next_s:
                return
            files = pack(shelf, left, node.held)
            if any(is_news(name) for name, _ in files):
                node.owes, node.wait_s, node.pause_s = self._waits, _WAITS_S[0], _IDLE_S[0]
            self._send(
                number,
                node,
                Parcel(
                    sender=self._researcher,
                    recipient=node.domain,
                    left=left,
                    held=self._from(node.domain).listing(),
                    files=files,
                    wait_s=node.wait_s if node.owes else 0.0,
                    versions=self._versions(node.domain),
                ),
            )

    def _send(self, number: int, node: Node, parcel: Parcel) -> None:
        on_its_way_s = parcel.size / _SLOWEST_BYTES_S
        name = self._post.send(number, parcel, _TTL_S + on_its_way_s)
        if name:
            node.asked[name] = time.monotonic() + parcel.wait_s + on_its_way_s + self._late_s
        self.messages, self.bytes_down = self.messages + 1, self.bytes_down + parcel.size

    # -- answers ------------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        asked = {name: number for number, node in self._nodes.items() for name in node.asked}
        if not asked or time.monotonic() - self._pulled_s < _PULL_S:
            return
        for name, answer in self._post.answers(list(asked)):
            self.heard_s = time.monotonic()
            number = asked.get(name)
            node = None if number is None else self._nodes.get(number)
            if number is None or node is None:
                continue
            node.asked.pop(name, None)
            try:
                if isinstance(answer, str):
                    raise RelayError(answer)
                self._take(number, node, answer)
            except (RelayError, OSError) as error:
                self._post.say(f"{node.domain or f'node {number}'}: {error}")
                self._nodes[number] = Node(next_s=time.monotonic() + _AGAIN_S)
        self._pulled_s = time.monotonic()

    def _take(self, number: int, node: Node, parcel: Parcel) -> None:
        if parcel.left is None:  # the answer to a greeting
            self._know(number, parcel)
            return
        if parcel.sender != node.domain:
            raise RelayError(f"it says now that it is {parcel.sender[:80]}")
        self._from(node.domain).receive(parcel.left, parcel.files)
        self.bytes_up += parcel.size
        node.held = parcel.held
        names = [name for name, _ in parcel.files]
        more = missing(parcel.left, self._from(node.domain).listing())
        if any(map(is_news, names)):
            node.owes, node.wait_s, node.pause_s = False, _WAITS_S[0], _IDLE_S[0]
        else:
            node.wait_s, node.pause_s = min(2 * node.wait_s, _WAITS_S[1]), min(2 * node.pause_s, _IDLE_S[1])
        node.next_s = 0.0 if node.owes or any(map(is_news, more)) else time.monotonic() + node.pause_s

    def _know(self, number: int, parcel: Parcel) -> None:
        """Note whose node it is; the newest node of a domain is the one."""
        self._from(parcel.sender)  # an address, and not the researcher's
        for other, node in self._nodes.items():
            if node.domain == parcel.sender and other != number:
                self._post.say(f"{parcel.sender}: node {number} takes the place of node {other}")
                self._nodes[other] = Node(next_s=time.monotonic() + _TTL_S)
        self._nodes[number] = Node(domain=parcel.sender, held=parcel.held)
        self._post.say(f"{parcel.sender}: connected (node {number})")

    def _versions(self, recipient: str) -> dict[str, str]:
        """Return what the other domains say of their software: the one thing that domains read of each other."""
        others = {node.domain for node in self._nodes.values()} - {"", recipient}
        said = {email: self._from(email).versions() for email in others}
        return {email: text for email, text in said.items() if text is not None}

    def _from(self, domain: str) -> Shelf:
        return Shelf(root=self._exchange, owner=domain, reader=self._researcher)
