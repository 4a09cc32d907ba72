"""``fedpriv data shard``: divide tables among domains, and show how the parts differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.clinical import ClinicalTables, load_mapping, shard_by_care_unit, write_shard
from fedpriv.clinical.dirichlet import ShardLabel, shard_by_dirichlet
from fedpriv.clinical.shards import Shard, in_no_shard, shard_by_admission_type, shard_by_hash
from fedpriv.clinical.staging import staged_folder
from fedpriv.errors import ConfigError

By = Literal["care-unit", "admission-type", "hash", "dirichlet"]


def shard_command(
    folder: Annotated[str, typer.Argument(metavar="TABLES", help="Where the tables are, as for `data harmonize`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New or empty folder; gets one folder for each shard.")],
    domains: Annotated[int, typer.Option(min=1, max=256, help="How many shards.")] = 3,
    by: Annotated[
        By,
        typer.Option(
            help="care-unit, admission-type: of a patient's first stay; hash: alike but for chance; "
            "dirichlet: by the mixtures of a label, for experiments."
        ),
    ] = "care-unit",
    alpha: Annotated[
        float | None, typer.Option(help="With dirichlet: small for shards that differ much, such as 0.1; or 100.")
    ] = None,
    label: Annotated[ShardLabel | None, typer.Option(help="With dirichlet: the label that shards differ in.")] = None,
    seed: Annotated[int, typer.Option(help="With hash and dirichlet: the same seed makes the same shards.")] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page on how the shards differ.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", metavar="FILE", help="mapping.yaml, where the tables differ.")
    ] = None,
) -> None:
    """Divide the tables among domains: each patient goes to one shard at most, with all admissions.

    By care unit and admission type the largest groups are taken. Shards are MIMIC-III tables, also those of mapped
    tables. How many patients are in no shard is shown.
    """
    if by != "dirichlet" and (alpha is not None or label is not None):
        raise ConfigError("--alpha and --label belong to --by dirichlet", kept="Nothing was written", todo="add it")
    with ClinicalTables.open(folder, mapping and load_mapping(mapping)) as tables:
        if by == "care-unit":
            shards = shard_by_care_unit(tables, domains)
        elif by == "admission-type":
            shards = shard_by_admission_type(tables, domains)
        elif by == "hash":
            shards = shard_by_hash(tables, domains, seed=seed)
        else:
            chosen = 0.5 if alpha is None else alpha
            shards = shard_by_dirichlet(tables, domains, alpha=chosen, label=label or "mortality", seed=seed)
        with staged_folder(out) as temporary:
            for part in shards:
                write_shard(tables, part, temporary / part.name)
        _show(shards, out, in_no_shard(tables, shards))
        if report is not None:
            from fedpriv.clinical.shard_page import write_shard_page  # plotly

            write_shard_page(tables, shards, report)
            Console().print(f"How they differ: {report}", markup=False, soft_wrap=True)


def _show(shards: Sequence[Shard], out: Path, missing: int) -> None:
    view = Table("Shard", "Whose patients", "Patients", "Folder", title="Shards")
    for part in shards:
        view.add_row(part.name, escape(part.words), f"{len(part.subject_ids):,}", escape(str(out / part.name)))
    console = Console()
    console.print(view)
    if missing:
        console.print(f"[yellow]In no shard:[/] {missing:,} patient{'' if missing == 1 else 's'}.")
