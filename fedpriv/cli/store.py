"""``fedpriv store``: the store that all parties reach."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.domain.finding import visible
from fedpriv.errors import ConfigError
from fedpriv.study.names import Email
from fedpriv.transport.checking import Finding, State, check_store

app = typer.Typer(name="store", help="The store that all parties reach: test it.", no_args_is_help=True)

_MARKS: dict[State, str] = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[bold red]✗[/]"}


@app.command()
def check(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="Its address: a folder, sftp://, s3://, gs://, az://, gdrive://, webdavs://."
        ),
    ],
    email: Annotated[
        str | None, typer.Option(help="Your address, where your account may write below it only; by default, check.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=1, max=1000, help="How many MB measure the line.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test a store end to end, as two parties use it: rights, whole objects, listings, clock and line.

    What it writes lies below your prefix and is removed again. The exit code is 1 if studies do not work over it.
    """
    prefix = _prefix(email)
    console = Console()
    if as_json:
        findings = check_store(url, prefix=prefix, megabytes=megabytes)
        typer.echo(json.dumps({"findings": [dataclasses.asdict(found) for found in findings]}, indent=2))
    else:
        with console.status("Looking at the store ...") as status:
            findings = check_store(
                url,
                prefix=prefix,
                megabytes=megabytes,
                on_finding=lambda found: status.update(f"{found.name}: looked at"),
            )
        console.print(_table(findings))
        console.print(_conclusion(findings))
    raise typer.Exit(int(any(found.state == "failed" for found in findings)))


def _prefix(email: str | None) -> str:
    if email is None:
        return "check"
    try:
        return TypeAdapter(Email).validate_python(email)
    except ValidationError as error:
        raise ConfigError(f"{email} is no email address", todo="give yours, as it is in domain.yaml") from error


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("What", style="bold", no_wrap=True)
    table.add_column("Found", overflow="fold")
    table.add_column("What to do", overflow="fold")
    for found in findings:
        words, todo = escape(visible(found.found)), escape(visible(found.todo))
        table.add_row(_MARKS[found.state], escape(found.name), words, todo)
    return table


def _conclusion(findings: list[Finding]) -> str:
    states = [found.state for found in findings]
    if "failed" in states:
        return "Studies do not work over this store as it is."
    if "warning" in states:
        return "Studies work over this store; what is marked ! could be better."
    return "Studies work over this store."
