"""The ServerApp: carries files between the researcher's exchange folder and the SuperNodes of the domains.

Settings of the run (``--run-config``): ``exchange``, the researcher's exchange folder on this machine, and
``researcher``, their address. It runs until ``flwr stop``; started again, it goes on, whatever was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from .mirror import Listing, RefusedError, Shelf, is_answer, is_news, missing
from .parcel import Parcel, pack

app = ServerApp()
_LOOK_S, _NODES_S, _PULL_S = 0.2, 2.0, 0.5
_WAITS_S, _IDLE_S = (20.0, 60.0), (2.0, 60.0)
_AGAIN_S, _LATE_S = 5.0, 60.0
_TTL_S, _SLOWEST_BYTES_S = 900.0, 64 * 1024


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


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry files until the run is stopped."""
    exchange, researcher = (str(context.run_config.get(key, "")) for key in ("exchange", "researcher"))
    if not exchange or not Path(exchange).is_dir():
        raise RefusedError(f"there is no exchange folder {exchange!r} on this machine")
    Relay(grid, Path(exchange), researcher).run()


class Relay:
    """The researcher's side of all links.

    Parameters
    ----------
    grid : Grid
        Flower's way to the SuperNodes.
    exchange : Path
        The researcher's exchange folder.
    researcher : str
        Their address.
    """

    def __init__(self, grid: Grid, exchange: Path, researcher: str) -> None:
        self._grid, self._exchange, self._researcher = grid, exchange, researcher
        self._nodes: dict[int, Node] = {}
        self._looked_s = self._pulled_s = 0.0
        self.messages = self.bytes_down = self.bytes_up = 0

    def run(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Carry files until ``is_over`` says so."""
        while not is_over():
            self._look_for_nodes()
            self._take_answers()
            for number, node in self._nodes.items():
                self._tend(number, node)
            time.sleep(_LOOK_S)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _look_for_nodes(self) -> None:
        if time.monotonic() - self._looked_s < _NODES_S:
            return
        online = set(self._grid.get_node_ids())
        for number in set(self._nodes) - online:
            log(INFO, "%s: its SuperNode is gone", self._nodes.pop(number).domain or number)
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
                node.owes, node.wait_s, node.pause_s = True, _WAITS_S[0], _IDLE_S[0]
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
                ),
            )

    def _send(self, number: int, node: Node, parcel: Parcel) -> None:
        on_its_way_s = parcel.size / _SLOWEST_BYTES_S
        message = Message(parcel.to_records(), number, MessageType.QUERY, ttl=_TTL_S + on_its_way_s)
        late_s = time.monotonic() + parcel.wait_s + on_its_way_s + _LATE_S
        for name in self._grid.push_messages([message]):
            if name:
                node.asked[name] = late_s
        self.messages, self.bytes_down = self.messages + 1, self.bytes_down + parcel.size

    # -- answers ------------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        asked = {name: number for number, node in self._nodes.items() for name in node.asked}
        if not asked or time.monotonic() - self._pulled_s < _PULL_S:
            return
        for answer in self._grid.pull_messages(list(asked)):
            number = asked.get(answer.metadata.reply_to_message_id)
            node = None if number is None else self._nodes.get(number)
            if number is None or node is None:
                continue
            node.asked.pop(answer.metadata.reply_to_message_id, None)
            try:
                if answer.has_error():
                    raise RefusedError(f"{answer.error.reason}")
                self._take(number, node, Parcel.from_records(answer.content))
            except RefusedError as error:
                log(WARNING, "%s: %s", node.domain or f"node {number}", error)
                self._nodes[number] = Node(next_s=time.monotonic() + _AGAIN_S)
        self._pulled_s = time.monotonic()

    def _take(self, number: int, node: Node, parcel: Parcel) -> None:
        if parcel.left is None:  # the answer to a greeting
            self._know(number, parcel)
            return
        if parcel.sender != node.domain:
            raise RefusedError(f"it says now that it is {parcel.sender[:80]}")
        self._from(node.domain).receive(parcel.left, parcel.files)
        self.bytes_up += parcel.size
        node.held = parcel.held
        names = [name for name, _ in parcel.files]
        more = missing(parcel.left, self._from(node.domain).listing())
        if any(map(is_answer, names)):
            node.owes = False
        if any(map(is_news, names)):
            node.wait_s, node.pause_s = _WAITS_S[0], _IDLE_S[0]
        else:
            node.wait_s, node.pause_s = min(2 * node.wait_s, _WAITS_S[1]), min(2 * node.pause_s, _IDLE_S[1])
        node.next_s = 0.0 if node.owes or any(map(is_news, more)) else time.monotonic() + node.pause_s

    def _know(self, number: int, parcel: Parcel) -> None:
        """Note whose node it is; the newest node of a domain is the one."""
        self._from(parcel.sender)  # an address, and not the researcher's
        for other, node in self._nodes.items():
            if node.domain == parcel.sender and other != number:
                log(WARNING, "%s: node %s takes the place of node %s", parcel.sender, number, other)
                self._nodes[other] = Node(next_s=time.monotonic() + _TTL_S)
        self._nodes[number] = Node(domain=parcel.sender, held=parcel.held)
        log(INFO, "%s: connected (node %s)", parcel.sender, number)

    def _from(self, domain: str) -> Shelf:
        return Shelf(root=self._exchange, owner=domain, reader=self._researcher)
