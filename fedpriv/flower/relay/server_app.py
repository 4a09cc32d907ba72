"""The ServerApp: the researcher's side of the relay, on Flower's grid.

Settings of the run (``--run-config``): ``exchange``, the researcher's exchange folder on this machine, and
``researcher``, their address. It runs until ``flwr stop``; started again, it goes on, whatever was lost.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from logging import INFO
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from .mirror import RelayError
from .parcel import Parcel
from .records import from_records, to_records
from .researcher_side import Relay

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry files until the run is stopped."""
    exchange, researcher = (str(context.run_config.get(key, "")) for key in ("exchange", "researcher"))
    if not exchange or not Path(exchange).is_dir():
        raise RelayError(f"there is no exchange folder {exchange!r} on this machine")
    Relay(GridPost(grid), Path(exchange), researcher).run()


class GridPost:
    """The way to SuperNodes through a Flower grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> set[int]:
        return set(self._grid.get_node_ids())

    def send(self, node: int, parcel: Parcel, ttl_s: float) -> str | None:
        message = Message(to_records(parcel), node, MessageType.QUERY, ttl=ttl_s)
        return next(iter(self._grid.push_messages([message])), None)

    def answers(self, names: Sequence[str]) -> Iterator[tuple[str, Parcel | str]]:
        for answer in self._grid.pull_messages(names):
            name = answer.metadata.reply_to_message_id
            if answer.has_error():
                yield name, answer.error.reason or f"Flower's error {answer.error.code}"
                continue
            try:
                yield name, from_records(answer.content)
            except RelayError as error:
                yield name, str(error)

    def say(self, sentence: str) -> None:
        log(INFO, sentence)
