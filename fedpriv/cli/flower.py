"""``fedpriv flower``: Flower in the place of a common store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedpriv.cli.options import DEFAULT_HOME, Home
from fedpriv.researcher import Researcher

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("app")
def write(
    target: Annotated[Path, typer.Argument(help="A new folder for the Flower app.", file_okay=False)],
    home: Home = DEFAULT_HOME,
) -> None:
    """Write the Flower app that carries files between your exchange folder and those of the domains.

    The exchange folder is the store that your home was made with, a folder on the SuperLink's machine. docs/flower.md
    tells what each data owner starts.
    """
    from fedpriv.flower import write_app

    config = Researcher.open(home).config
    write_app(target, researcher=config.email, exchange=config.store)
    console = Console(soft_wrap=True)
    console.print(f"Wrote the Flower app to {escape(str(target))}.")
    console.print(f"Next: `flwr run {escape(str(target))} SUPERLINK`, and your study as always.")
