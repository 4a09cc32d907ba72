"""``fedpriv domain schema`` and ``compare``: what a domain says of its harmonised data, and whether two agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.harmonize import stages
from fedpriv.clinical.statement import needed_columns, state_shard
from fedpriv.clinical.tally_page import verdict
from fedpriv.domain import Domain
from fedpriv.errors import DataError, SignatureError, UntrustedError
from fedpriv.files import read_json, write_json
from fedpriv.protection import fingerprint, open_signed, sign
from fedpriv.study import Identity, Signed
from fedpriv.study.section import Section
from fedpriv.study.shard import ShardStatement, differences
from fedpriv.study.task import TaskChoice


class _SchemaFile(Section):
    """A statement with the public keys that check it."""

    fedpriv_schema: int = Field(default=1, ge=1, le=1)
    identity: Identity
    statement: Signed


def schema(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The domain's folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the signed statement there, to be sent to others.")
    ] = None,
) -> None:
    """Say which tables and columns the harmonised data have, and roughly how much: signed, without any value.

    Counts are rounded down to two digits; of a column it says only whether at least half of the rows have it.
    """
    from fedpriv.domain.starting import prepare_data, read_record

    domain = Domain.open(folder)
    with stages() as on_progress:
        record = read_record(domain, on_progress)
        prepared = prepare_data(domain, record, on_progress=on_progress)
    config, task = domain.config, TaskChoice()
    statement = state_shard(config.email, config.data.dataset, record.tally, prepared, task=task, files={})
    console = Console()
    console.print(_view(statement))
    if out is not None:
        signed = sign(domain.keys, "shard", statement)
        file = _SchemaFile(identity=domain.keys.identity, statement=signed)
        write_json(out, file.model_dump(mode="json"), mode=0o644)
        console.print(f"Signed by {domain.keys.fingerprint}: {escape(str(out))}", soft_wrap=True)


def refresh(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The domain's folder.")],
) -> None:
    """Read the domain's tables again, as after a new export or for newer rows of a database.

    Files that changed are also found when the service starts; a database is read once and kept until this is asked for.
    What was read takes effect when the service is started again.
    """
    from fedpriv.domain.starting import prepare_data, read_record

    domain = Domain.open(folder)
    with stages() as on_progress:
        record = read_record(domain, on_progress, again=True)
        prepared = prepare_data(domain, record, on_progress=on_progress)
    console = Console()
    console.print(escape(verdict(record.tally, domain.config.data.refused_rows)))
    console.print(f"{prepared.examples:,} examples to train on, {prepared.heldout_examples:,} held out.")


def compare(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What `fedpriv domain schema --out` wrote.")],
) -> None:
    """Compare the statements of two domains or more: does the default task read the same of all of them?

    Exit code 2 if they do not agree. Compare each fingerprint over the phone: a file proves only who signed it.
    """
    console = Console()
    if len(files) < 2:
        raise DataError("One statement cannot be compared", todo="give the files of two domains or more")
    statements: dict[str, ShardStatement] = {}
    for path in files:
        who, statement = _read(path)
        console.print(
            f"{escape(statement.member)}: about {statement.patients:,} patients, signed by {who}", soft_wrap=True
        )
        if statement.member in statements:
            raise DataError(f"{statement.member} is there twice", todo="give one file a domain")
        statements[statement.member] = statement
    found = differences(statements, needed_columns(TaskChoice(), {}))
    for difference in found:
        console.print(f"[red]-[/] {escape(difference)}")
    if found:
        raise typer.Exit(2)
    console.print("[green]The shards agree.[/]")


def _read(path: Path) -> tuple[str, ShardStatement]:
    """Return who signed a file, and the statement in it."""
    try:
        file = _SchemaFile.model_validate_json(json.dumps(read_json(path)))
        statement = open_signed(file.statement, kind="shard", identity=file.identity, model=ShardStatement)
    except (OSError, ValidationError, UntrustedError, ValueError) as error:
        if isinstance(error, SignatureError):
            raise
        raise UntrustedError(f"{path} is no statement of a domain", kept="It was not used") from error
    if statement.member != file.identity.email:
        raise SignatureError(f"{path} is signed by {file.identity.email} for another domain", kept="It was not used")
    return fingerprint(file.identity), statement


def _view(statement: ShardStatement) -> Table:
    amount = f"about {statement.patients:,} patients, {statement.admissions:,} admissions"
    view = Table("Table", "Columns that most rows have", title=f"{escape(statement.member)}: {amount}")
    for table, columns in statement.tables.items():
        view.add_row(table, ", ".join(columns))
    return view
