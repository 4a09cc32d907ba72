"""``fedpriv study peers``: the domains that a researcher knows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.new_domain import parse_pin
from fedpriv.cli.options import DEFAULT_HOME, Home
from fedpriv.protection import fingerprint_words
from fedpriv.researcher import Researcher


def peers(
    domain: Annotated[
        list[str] | None, typer.Argument(help="EMAIL=FINGERPRINT of a domain to add; without any, all are shown.")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Show the domains you know, or add some; `study new` and the notebooks take them all by default."""
    console = Console()
    book = Researcher.open(home).peers
    known = book.add(parse_pin(text) for text in domain) if domain else book.read()
    if not known:
        console.print("No domains yet. Next: `fedpriv study peers EMAIL=FINGERPRINT ...`, as their `init` printed it.")
        return
    table = Table("domain", "fingerprint, in words")
    for member in known:
        table.add_row(escape(member.email), fingerprint_words(member.fingerprint))
    console.print(table)
    console.print("Compare the words over the phone before you rely on them.")
