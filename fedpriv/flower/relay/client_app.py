"""The ClientApp of a domain's SuperNode: takes what a message brings, waits for the domain's answer, and sends it.

Settings of the SuperNode (``--node-config``): ``exchange``, the domain's exchange folder, and ``domain``, its address.
Each message is a new process; all that it knows lies in the folder.
"""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from .mirror import RefusedError, Shelf, is_news, missing
from .parcel import Parcel, pack

app = ClientApp()
_LOOK_S = 0.1


@app.query()
def carry(message: Message, context: Context) -> Message:
    """Answer one message of the researcher's relay."""
    exchange, domain = _settings(context)
    answer = exchange_parcels(Parcel.from_records(message.content), exchange, domain)
    return Message(answer.to_records(), reply_to=message)


def exchange_parcels(asked: Parcel, exchange: Path, domain: str) -> Parcel:
    """Take a parcel of the researcher's and return what the domain has for it.

    Raises
    ------
    RefusedError
        If the parcel is for another domain, or brings what may not be written.
    """
    ours = Shelf(root=exchange, owner=domain, reader=asked.sender)
    theirs = Shelf(root=exchange, owner=asked.sender, reader=domain)
    if asked.left is None:
        return Parcel(sender=domain, recipient=asked.sender, held=theirs.listing())
    if asked.recipient != domain:
        raise RefusedError(f"a message for {asked.recipient[:80]!r} came to {domain}")
    theirs.receive(asked.left, asked.files)
    _wait_for_news(ours, asked)
    left = ours.listing()
    files = pack(ours, left, asked.held)
    return Parcel(sender=domain, recipient=asked.sender, left=left, held=theirs.listing(), files=files)


def _wait_for_news(ours: Shelf, asked: Parcel) -> None:
    """Wait until the domain has something that somebody waits for, and at most as long as the other side wants."""
    end = time.monotonic() + asked.wait_s
    while time.monotonic() < end and not any(map(is_news, missing(ours.listing(), asked.held))):
        time.sleep(_LOOK_S)


def _settings(context: Context) -> tuple[Path, str]:
    """Return the exchange folder and the address of the domain.

    Raises
    ------
    RefusedError
        If the SuperNode was started without them.
    """
    exchange, domain = (str(context.node_config.get(key, "")) for key in ("exchange", "domain"))
    if not domain or not Path(exchange).is_dir() or not exchange:
        raise RefusedError(
            f"this SuperNode has no exchange folder ({exchange!r}) or no domain ({domain!r}): "
            """start it with --node-config 'exchange="/path" domain="name@site.example"'"""
        )
    return Path(exchange), domain
