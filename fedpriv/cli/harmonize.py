"""``fedpriv data harmonize``: do a hospital's tables fit, and how, column by column."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedpriv.clinical import load_mapping
from fedpriv.clinical.harmonize import REFUSED_SHARE, harmonize
from fedpriv.clinical.tally import TableTally, Tally, finding_in_words
from fedpriv.clinical.tally_page import verdict, write_tally_page
from fedpriv.errors import DataError
from fedpriv.scratch import scratch_folder

Location = Annotated[
    str,
    typer.Argument(
        metavar="TABLES",
        help="Folder of CSV, csv.gz or Parquet files; a DuckDB file; or postgresql://user@host/database.",
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE", help="mapping.yaml, where the tables have another schema."),
]


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str, float], None]]:
    """Show a bar on standard error; give what is called with a stage and the part of it that is done."""
    bar = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("getting ready", total=1.0)
        yield lambda stage, done: bar.update(task, description=escape(stage), completed=done)


def harmonize_command(
    tables: Location,
    mapping: MappingFile = None,
    check: Annotated[bool, typer.Option("--check", help="Only look: nothing is kept.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the common record there, as a domain would.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page with every column.")] = None,
    refused: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of a table's rows that may be refused.")
    ] = REFUSED_SHARE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn tables into the common record, and say per column what matched, was converted, is missing or refused.

    Exit code 2 if too many rows are refused. Shows counts and numbers of rows, never a value. The counts are of your
    own data: look at them here only.
    """
    if check == (out is not None):
        raise DataError(
            "Say either --check or --out", kept="Nothing was read", todo="use --check to look, --out DIR to keep it"
        )
    read = mapping and load_mapping(mapping)
    with scratch_folder("check") as scratch, stages() as on_progress:
        record = harmonize(
            tables,
            out or scratch,
            mapping=read,
            refused_share=None if check else refused,
            on_progress=on_progress,
        )
    tally = record.tally
    if report is not None:
        write_tally_page(tally, report, refused_share=refused)
    if as_json:
        typer.echo(json.dumps({"fits": not tally.unfit(refused), **tally.model_dump(mode="json")}))
    else:
        _print(Console(), tally, refused)
        if report is not None:
            Console().print(f"Every column: {escape(str(report))}")
        if out is not None:
            Console().print(f"The common record: {escape(str(record.folder))}", soft_wrap=True)
    if tally.unfit(refused):
        raise typer.Exit(2)


def _print(console: Console, tally: Tally, refused: float) -> None:
    for table in tally.tables:
        console.print(_view(table))
        for finding in table.findings:
            colour = {"refused": "red", "repaired": "yellow", "unused": "dim"}[finding.kind]
            console.print(f"  [{colour}]{escape(finding_in_words(finding, table))}[/]")
    console.print(escape(verdict(tally, refused)), style="red" if tally.unfit(refused) else "green")


def _view(table: TableTally) -> Table:
    view = Table(
        "Column",
        "Theirs",
        "Conversion",
        title=f"{table.name} from {escape(table.label)}: {table.kept:,} of {table.read:,} rows kept",
        title_justify="left",
    )
    for heading in ("Filled", "Converted", "Empty"):
        view.add_column(heading, justify="right")
    for column in table.columns:
        view.add_row(
            column.name,
            escape(column.source) or "[dim]not there[/]",
            escape(column.rule) or "[dim]as it is[/]",
            f"{column.filled:,}",
            f"{column.converted:,}" if column.rule else "",
            f"{column.empty:,}" if column.empty else "",
        )
    return view
