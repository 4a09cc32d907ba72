"""``fedpriv audit``: what a data owner measures on the own shard, for nobody else's eyes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedpriv.cli.options import AsJson, StudyId
from fedpriv.errors import ConfigError

if TYPE_CHECKING:
    from fedpriv.audit import LeakageAudit

app = typer.Typer(no_args_is_help=True)
console = Console()


@app.callback()
def _audit() -> None:
    pass


@app.command()
def leakage(
    study: StudyId,
    domain: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The domain's folder, with domain.yaml in it.")
    ] = Path(),
    passages: Annotated[int, typer.Option(min=5, max=1000, help="How many passages of your notes are tried.")] = 16,
    texts: Annotated[
        int,
        typer.Option(min=0, max=1000, help="So many of them are also read word for word, which takes minutes each."),
    ] = 0,
    rounds: Annotated[
        int, typer.Option(min=0, max=200, help="How many whole rounds are tried, too; 0 leaves them out.")
    ] = 8,
    epsilons: Annotated[
        str, typer.Option(metavar="1,4,8", help="Also measure what differential privacy with these would do.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Which passages are drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page there, too; the domain's folder keeps one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure by attack what others could read from updates of your own notes under a request's plan.

    Runs here, before or after you approve, and sends nothing. Writes a page without any patient text.
    """
    from fedpriv.audit import AuditChoice, audit_leakage, keep_audit, write_page
    from fedpriv.cli.view import quieten_transformers
    from fedpriv.domain import Domain

    choice = AuditChoice(passages=passages, texts=texts, rounds=rounds, epsilons=_numbers(epsilons), seed=seed)
    owner = Domain.open(domain)
    stored = owner.requests.get(study)
    quieten_transformers()
    with _bars() as report:
        found = audit_leakage(owner, stored, choice, report=report)
    path = keep_audit(owner.folder, found)
    if out is not None:
        path = write_page(found, out)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    _print(found)
    console.print(f"Wrote {escape(str(path))}: open it in a browser. It is readable by you only.", soft_wrap=True)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.replace(",", " ").split()}))
    except ValueError as error:
        raise ConfigError(f"--epsilons {text!r} is not a list of numbers", todo="write them as 1,4,8") from error


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage on standard error while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)

        yield report


def _print(audit: LeakageAudit) -> None:
    from fedpriv.audit.words import ASKS, PARTIES, WHO, between, headline, percent, verdict

    console.print(f"[bold]{escape(headline(audit))}[/]\n", highlight=False)
    for attack, asks in ASKS.items():
        if all(measure.attack != attack for measure in audit.measures):
            continue
        table = Table("who looks", "found", "95 % interval", "that is", title=asks, title_justify="left")
        for party in PARTIES:
            measure = audit.of(party, attack=attack)
            if measure is None:
                continue
            found = measure.found
            numbers = ("", "") if found is None else (percent(found.value), between(found.low, found.high))
            table.add_row(WHO[party], *numbers, verdict(measure))
        console.print(table)
    for advice in audit.advice:
        console.print(f"- {escape(advice.text)}", highlight=False)
