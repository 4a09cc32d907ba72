"""``fedpriv domain budget``: what a domain's data have cost in epsilon, and what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.domain import Domain
from fedpriv.domain.budget_gauge import budget_gauge

console = Console()


def budget(
    folder: Annotated[Path, typer.Argument(help="The domain's folder, with domain.yaml in it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show how much epsilon each study has spent on this domain's data, and what its budget has left."""
    domain = Domain.open(folder)
    found = budget_gauge(domain).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found["studies"]:
        console.print("No round with differential privacy was trained on these data yet.")
    else:
        table = Table("study", "protects", "rounds", "epsilon", "delta", title=f"Epsilon spent on {found['dataset']}")
        for study in found["studies"]:
            cells = (study["study"][:12], study["unit"], str(study["rounds"]), f"{study['epsilon']:.3f}")
            table.add_row(*map(escape, cells), f"1/{study['patients']}")
        console.print(table)
    console.print(
        f"All studies together: epsilon [bold]{found['spent']:.3f}[/] (less than the sum: they are composed)."
    )
    if found["budget"] is None:
        console.print("There is no budget: set policy > epsilon in domain.yaml to have one.")
    else:
        console.print(f"Budget: {found['budget']:g}; left: [bold]{found['left']:.3f}[/].")
    console.print("Held-out losses that were sent are of other patients and are not in these figures.")
