"""``fedpriv model``: the base models on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from fedpriv.domain.finding import visible
from fedpriv.errors import ConfigError
from fedpriv.training.base_model import LocalModel, add_model, ensure_model, list_models, remove_model
from fedpriv.training.layers import load_layers

app = typer.Typer(
    name="model",
    help="The base models on this machine: look at them, add others, remove them.",
    no_args_is_help=True,
)

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="What plans call it: small letters, digits, dashes.")]


@app.command()
def add(
    name: ModelName,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the model, as save_pretrained writes it.")
    ] = None,
    hub: Annotated[str | None, typer.Option(metavar="ID", help="Its id on the hub, in place of a folder.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit or tag on the hub; by default the newest.")] = None,
) -> None:
    """Add a causal language model of transformers under a name.

    Its weights must be safetensors, and it must need no code of its own: fedpriv runs none that comes with a model.
    The files are copied. Every domain of a study adds the model under the same name; a plan names the weights' digest.
    """
    if (folder is None) == (hub is None):
        raise ConfigError("A model comes from a folder or from a hub", todo="give one of --folder and --hub")
    if revision is not None and hub is None:
        raise ConfigError("A folder has no revision", todo="leave --revision out, or give --hub")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task("looking", total=1)

        def show(stage: str, done: float) -> None:
            bar.update(task, description=stage, completed=done)

        model = add_model(name, folder=folder, repository=hub, revision=revision, on_progress=show)
    console = Console()
    console.print(f"Added {name}, {_gigabytes(model.weights_bytes)} of weights with the digest {model.digest}.")
    console.print(f"Layers that LoRA can adapt: {_layers(model)}.", markup=False)
    console.print(f"Next: `fedpriv study new STUDY --model {name} ...`, and the same `model add` at every domain.")


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the models on this machine, their weights' digests, and which layers LoRA can adapt."""
    models = list_models()
    if as_json:
        typer.echo(json.dumps([_facts(model) for model in models], indent=2))
        return
    table = Table(Column("name", no_wrap=True), "weights", "from", "layers for LoRA", "digest")
    for model in models:
        origin = model.hub if model.source == "hub" else model.source
        size, layers = _gigabytes(model.weights_bytes), _layers(model)
        table.add_row(model.name, size, escape(visible(origin)), escape(visible(layers)), model.digest[:12])
    Console().print(table if models else "No base model is on this machine yet; the first study fetches its own.")


@app.command()
def remove(name: ModelName) -> None:
    """Remove a model's files from this machine. One of fedpriv's own is fetched again when a study needs it."""
    remove_model(name)
    typer.echo(f"Removed {name}.")


@app.command()
def check(name: ModelName) -> None:
    """Hash a model's files and compare them with those that were added."""
    model = ensure_model(name)
    typer.echo(f"{name} is whole: {_gigabytes(model.weights_bytes)} of weights with the digest {model.digest}.")


def _layers(model: LocalModel) -> str:
    return ", ".join(sorted({name.split(".")[-1] for name in load_layers(model.folder)}))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"


def _facts(model: LocalModel) -> dict[str, Any]:
    layers = sorted({name.split(".")[-1] for name in load_layers(model.folder)})
    return {
        "name": model.name,
        "digest": model.digest,
        "source": model.source,
        "hub": model.hub,
        "weights_bytes": model.weights_bytes,
        "layers": layers,
    }
