"""``fedpriv study sample``: what the released adapter changed, side by side."""

from __future__ import annotations

import json
import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedpriv.cli.options import DEFAULT_HOME, Home, Name
from fedpriv.cli.view import quieten_transformers
from fedpriv.domain.finding import visible
from fedpriv.researcher import Researcher, Study

if TYPE_CHECKING:
    from fedpriv.researcher.samples import Samples

console = Console()

_MOST_PROMPT, _MOST_SHOWN = 400, 4000


def sample(
    name: Name,
    prompts: Annotated[int, typer.Option(min=1, max=64, help="How many made-up texts.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, max=1024, help="The most that is written after each.")] = 48,
    temperature: Annotated[
        float, typer.Option(min=0, max=5, help="0: the likeliest word each time; above, words are drawn.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which texts, and the draws.")] = 0,
    adapter: Annotated[
        Path | None, typer.Option(help="A PEFT folder; by default the adapter that the domains released.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Show what the base model writes or answers on made-up texts, without the adapter and with it.

    The texts are mock examples of the study's task; no domain is asked, and nothing private is read.
    """
    from fedpriv.researcher.samples import released_adapter, samples
    from fedpriv.training.base_model import ensure_model

    study = Study.open(Researcher.open(home), name)
    request = study.folder.draft()
    model = ensure_model(request.plan.base_model.name)
    state = released_adapter(study, model, adapter)
    quieten_transformers()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("answering" if request.plan.task.is_predictive else "writing", total=None)
        found = samples(
            request,
            model,
            state,
            prompts=prompts,
            tokens=tokens,
            temperature=temperature,
            seed=seed,
            threads=os.cpu_count() or 1,
            report=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        _print(found)


def _print(found: Samples) -> None:
    for number, text in enumerate(found.written, 1):
        _print_prompt(number, text.prompt)
        table = Table("without the adapter", "with it", expand=True)
        table.add_row(*(Text(_shown(said, _MOST_SHOWN)) for said in (text.base, text.adapted)))
        console.print(table)
    for number, (prompt, questions) in enumerate(groupby(found.answered, key=lambda asked: asked.prompt), 1):
        _print_prompt(number, prompt)
        table = Table("question", "answer")
        for heading in ("yes without the adapter", "yes with it"):
            table.add_column(heading, justify="right")
        for asked in questions:
            chances = (f"{chance:.1%}" for chance in (asked.base, asked.adapted))
            table.add_row(Text(_shown(asked.question, _MOST_SHOWN)), "yes" if asked.answer else "no", *chances)
        console.print(table)
    console.print(
        f"All texts {'and answers ' if found.answered else ''}are made up; they are no measure of the adapter."
    )


def _print_prompt(number: int, prompt: str) -> None:
    cut = prompt if len(prompt) <= _MOST_PROMPT else f"… {prompt[-_MOST_PROMPT:]}"
    console.print(Text.assemble((f"Text {number}: ", "bold"), _shown(cut, _MOST_SHOWN)))


def _shown(text: str, most: int) -> str:
    """Return what a model wrote so that it can do nothing to a terminal; its lines stay lines."""
    return "\n".join(visible(line, most) for line in text.splitlines())
