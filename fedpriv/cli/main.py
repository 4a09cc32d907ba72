"""The command line: the same calls as the notebooks, with sentences for errors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedpriv import __version__
from fedpriv.cli.audit import app as audit_app
from fedpriv.cli.bench import app as bench_app
from fedpriv.cli.data import app as data_app
from fedpriv.cli.demo import demo
from fedpriv.cli.domain import app as domain_app
from fedpriv.cli.flower import app as flower_app
from fedpriv.cli.lab import lab
from fedpriv.cli.model import app as model_app
from fedpriv.cli.saying import os_error_in_words
from fedpriv.cli.store import app as store_app
from fedpriv.cli.study import app as study_app
from fedpriv.errors import FedprivError

app = typer.Typer(
    name="fedpriv",
    help="Federated LoRA fine-tuning on clinical notes that stay in the building.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(domain_app, name="domain", help="The data owner's side: a domain and its requests.")
app.add_typer(study_app, name="study", help="The researcher's side: studies and their rounds.")
app.add_typer(audit_app, name="audit", help="The data owner's side: what others could read from updates, measured.")
app.add_typer(data_app, name="data", help="MIMIC-III tables: look at, make up, divide.")
app.add_typer(model_app, name="model", help="The base models on this machine.")
app.add_typer(store_app, name="store", help="The store that all parties reach: test it.")
app.add_typer(flower_app, name="flower", help="Flower in the place of a common store.")
app.add_typer(bench_app, name="bench", help="Measure what protection costs on this machine.")
app.command()(demo)
app.command()(lab)


@app.command()
def doctor() -> None:
    """Show what is installed, what is missing, and how to get it."""
    from fedpriv.doctor import render, run_checks

    checks = run_checks()
    Console().print(render(checks))
    raise typer.Exit(1 if any(check.state == "missing" for check in checks) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedpriv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of ours is a sentence on stderr and its exit code, never a traceback."""
    try:
        app()
    except FedprivError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)
    except OSError as error:
        said = os_error_in_words(error)
        if said is None:
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/] {escape(said[0])}", highlight=False)
        sys.exit(said[1])
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. What was finished is kept.")
        sys.exit(130)


if __name__ == "__main__":
    main()
