"""``fedpriv data``: look at MIMIC-III tables, make synthetic ones, divide them among domains."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.harmonize import Location, harmonize_command
from fedpriv.cli.shard import shard_command
from fedpriv.clinical import (
    ClinicalTables,
    load_mapping,
    patients_per_unit,
    write_in_ccu_schema,
    write_synthetic,
)
from fedpriv.clinical.schema import NEEDED_TABLES, OPTIONAL_TABLES
from fedpriv.clinical.tally import finding_in_words

app = typer.Typer(
    name="data",
    help="Look at MIMIC-III tables, make synthetic ones, divide them among domains.",
    no_args_is_help=True,
)

app.command("harmonize")(harmonize_command)
app.command("shard")(shard_command)

MappingFile = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE", help="mapping.yaml, where the tables have another schema."),
]

_WITHOUT = {
    "D_ICD_DIAGNOSES": "diagnoses are told by their ICD-9 code",
    "PROCEDURES_ICD": "texts name no procedures",
    "D_ICD_PROCEDURES": "procedures are told by their ICD-9 code",
    "PRESCRIPTIONS": "texts name no drugs",
    "LABEVENTS": "texts name no laboratory values",
    "D_LABITEMS": "laboratory values are told by their number",
    "NOTEEVENTS": "texts are told from the structured tables",
}


@app.command()
def inspect(tables: Location, mapping: MappingFile = None) -> None:
    """Show which tables are there, how many rows and patients they hold, and what is missing.

    Reads TABLES and writes nothing. The counts are of your own data: they are shown here only.
    Rows that are refused, left out or mended are counted, with the numbers of the first. For every column, see
    `fedpriv data harmonize --check`.
    """
    console = Console()
    with ClinicalTables.open(tables, mapping and load_mapping(mapping), refused_share=None) as found:
        console.print(_tables_view(found))
        console.print(_units_view(found))
        for table in found.tally.tables:
            for finding in table.findings:
                console.print(f"[yellow]-[/] {escape(finding_in_words(finding, table))}")
        notes = found.rows(
            "SELECT count(DISTINCT hadm_id) FROM noteevents WHERE lower(trim(category)) = 'discharge summary'"
        )[0][0]
        console.print(f"Discharge summaries: {f'for {notes} admissions' if notes else 'none'}")
        for name in OPTIONAL_TABLES:
            if not found.has(name):
                console.print(f"[yellow]Missing:[/] {name}; {_WITHOUT[name]}.")
        if found.has("NOTEEVENTS") and not notes:
            console.print(f"[yellow]NOTEEVENTS holds no discharge summary[/]; {_WITHOUT['NOTEEVENTS']}.")


@app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder for the tables.")],
    patients: Annotated[int, typer.Option(min=1, max=50_000, help="How many patients to make up.")] = 240,
    seed: Annotated[int, typer.Option(help="The same seed makes the same tables, byte for byte.")] = 0,
    schema: Annotated[
        Literal["mimic-iii", "ccu"], typer.Option(help="ccu: as the example domains/ccu has its tables.")
    ] = "mimic-iii",
) -> None:
    """Write made-up tables: the schema of MIMIC-III, or that of an example hospital; no real patient.

    Patients of the five care units differ in diagnoses, drugs and notes, so that shards differ as hospitals do.
    """
    console = Console()
    if schema == "ccu":
        _synthesize_ccu(folder, patients, seed)
        console.print(f"Synthetic tables written to {folder}", markup=False)
        console.print(f"Next: `fedpriv data inspect {folder} --mapping domains/ccu/mapping.yaml`.", markup=False)
        return
    write_synthetic(folder, patients=patients, seed=seed)
    with ClinicalTables.open(folder) as tables:
        console.print(_tables_view(tables))
        console.print(_units_view(tables))
    console.print(f"Synthetic tables written to {folder}", markup=False)


def _synthesize_ccu(folder: Path, patients: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        write_synthetic(Path(made) / "tables", patients=patients, seed=seed)
        with ClinicalTables.open(Path(made) / "tables") as tables:
            write_in_ccu_schema(tables, folder)


def _tables_view(tables: ClinicalTables) -> Table:
    view = Table("Table", "Rows", "File", title="Tables")
    for name in (*NEEDED_TABLES, *OPTIONAL_TABLES):
        if tables.has(name):
            view.add_row(name, f"{tables.count(name):,}", escape(tables.label(name)))
        else:
            view.add_row(name, "-", "missing")
    return view


def _units_view(tables: ClinicalTables) -> Table:
    view = Table("First care unit", "Patients", title="Patients by first care unit")
    for unit, count in patients_per_unit(tables).items():
        view.add_row(escape(unit), f"{count:,}")
    return view
