"""The ClientApp of a domain's SuperNode.

Settings of the SuperNode (``--node-config``): ``exchange``, the domain's exchange folder, and ``domain``, its address.
Each message is a new process; all that it knows lies in the folder.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from .domain_side import answer_parcel
from .mirror import RelayError
from .records import from_records, to_records

app = ClientApp()


@app.query()
def carry(message: Message, context: Context) -> Message:
    """Answer one message of the researcher's relay."""
    exchange, domain = _settings(context)
    return Message(to_records(answer_parcel(from_records(message.content), exchange, domain)), reply_to=message)


def _settings(context: Context) -> tuple[Path, str]:
    """Return the exchange folder and the address of the domain.

    Raises
    ------
    RelayError
        If the SuperNode was started without them.
    """
    exchange, domain = (str(context.node_config.get(key, "")) for key in ("exchange", "domain"))
    if not domain or not Path(exchange).is_dir() or not exchange:
        raise RelayError(
            f"this SuperNode has no exchange folder ({exchange!r}) or no domain ({domain!r}): "
            """start it with --node-config 'exchange="/path" domain="name@site.example"'"""
        )
    return Path(exchange), domain
