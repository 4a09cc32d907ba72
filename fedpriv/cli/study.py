"""``fedpriv study``: what a researcher does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.domain import parse_pin
from fedpriv.cli.view import StudyView
from fedpriv.protection import fingerprint_words
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.study import Plan, validate_section

app = typer.Typer(no_args_is_help=True)
console = Console()

Home = Annotated[Path, typer.Option(help="The researcher's home folder.")]
Name = Annotated[str, typer.Argument(help="The study's name.")]
DEFAULT_HOME = Path(".fedpriv/researcher")


@app.command()
def init(
    email: Annotated[str, typer.Option(help="Your address; lower case.")],
    store: Annotated[str, typer.Option(help="Folder or URL of the store that all parties reach.")],
    name: Annotated[str, typer.Option(help="A short name.")] = "researcher",
    home: Home = DEFAULT_HOME,
) -> None:
    """Make a researcher's home with keys. Prints the fingerprint that data owners pin."""
    config = validate_section(ResearcherConfig, {"name": name, "email": email, "store": store}, source="the options")
    researcher = Researcher.create(home, config)
    researcher.publish_identity()
    console.print(f"Made your home in {escape(str(home))}.")
    console.print(f"Fingerprint: [bold]{researcher.keys.fingerprint}[/]", soft_wrap=True)
    console.print(f"  by phone:  {fingerprint_words(researcher.keys.fingerprint)}")
    console.print("Next: each data owner runs `fedpriv domain trust FOLDER EMAIL=FINGERPRINT` with it.")


@app.command()
def new(
    name: Name,
    domain: Annotated[list[str], typer.Option(help="EMAIL=FINGERPRINT of a domain; once for each.")],
    model: Annotated[str, typer.Option(help="Base model: smollm2-135m-instruct or tiny.")] = "smollm2-135m-instruct",
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 3,
    steps: Annotated[int, typer.Option(help="Optimiser steps a round.")] = 4,
    protection: Annotated[str, typer.Option(help="sealed, ckks or plain.")] = "sealed",
    title: Annotated[str, typer.Option(help="What data owners read first.")] = "LoRA fine-tuning",
    recipe: Annotated[Path | None, typer.Option(help="Your own train.py; by default the stock recipe.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a study's plan.yaml and train.py for you to read and edit. Nothing is sent."""
    from fedpriv.training.base_model import ensure_model
    from fedpriv.training.recipe import stock_recipe

    researcher = Researcher.open(home)
    digest = ensure_model(model).digest
    plan = validate_section(
        Plan,
        {
            "title": title,
            "researcher": {"email": researcher.config.email, "fingerprint": researcher.keys.fingerprint},
            "cohort": [parse_pin(text).model_dump() for text in domain],
            "base_model": {"name": model, "digest": digest},
            "training": {"rounds": rounds, "steps": steps},
            "protection": {"level": protection},
        },
        source="the options",
    )
    text = recipe.read_text(encoding="utf-8") if recipe else stock_recipe()
    study = Study.create(researcher, name, plan, recipe=text)
    console.print(f"Wrote {escape(str(study.folder.root / 'plan.yaml'))} and train.py.")
    console.print(f"Next: read and edit them, then `fedpriv study submit {escape(name)}`.")


@app.command()
def submit(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Send the code request to every domain of the cohort."""
    study = Study.open(Researcher.open(home), name)
    study_id = study.submit(on_wait=lambda what: console.print(f"… {escape(what)}"))
    console.print(f"Submitted to {len(study.plan.cohort)} domains; the study id is {study_id[:12]}.")
    console.print(
        f"Next: the data owners decide; `fedpriv study run {escape(name)}` waits for them and starts the rounds."
    )


@app.command()
def run(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Wait for the approvals and run the rounds, with a live view."""
    _run(name, home, resume=False)


@app.command()
def resume(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Go on with a study whose last run was stopped or killed; no domain trains twice."""
    _run(name, home, resume=True)


@app.command()
def status(
    name: Name, home: Home = DEFAULT_HOME, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show where a study is."""
    state = Study.open(Researcher.open(home), name).status()
    if as_json:
        typer.echo(json.dumps(state))
        return
    table = Table(show_header=False, box=None)
    for key, value in state.items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(key.replace("_", " "), escape(text))
    console.print(table)


@app.command()
def release(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the PEFT folder goes.")] = Path("adapter"),
    home: Home = DEFAULT_HOME,
) -> None:
    """Ask the domains for the adapter and write it as a PEFT folder."""
    target = Study.open(Researcher.open(home), name).release(out)
    console.print(f"Wrote the adapter to {escape(str(target))}; peft.PeftModel.from_pretrained loads it.")


def _run(name: str, home: Path, *, resume: bool) -> None:
    study = Study.open(Researcher.open(home), name)
    with StudyView(console) as view:
        finished = study.run(view, resume=resume)
    console.print(f"Held-out loss {finished.loss_before:.4f} before, [bold]{finished.loss_after:.4f}[/] after.")
    console.print(f"Next: `fedpriv study release {escape(name)} --out adapter`.")
