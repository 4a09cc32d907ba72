"""``fedpriv demo``: the whole way, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.view import REPORT_TO_HELP, StudyView
from fedpriv.errors import ConfigError
from fedpriv.study.protection_choice import ProtectionLevel

if TYPE_CHECKING:
    from fedpriv.experiments.demo import DemoResult

_LEVELS = get_args(ProtectionLevel)


def demo(
    mimic: Annotated[
        Path | None, typer.Option(help="Folder with MIMIC-III tables (CSV or csv.gz); without it, synthetic ones.")
    ] = None,
    model: Annotated[str, typer.Option(help="Base model: smollm2-135m-instruct or tiny.")] = "smollm2-135m-instruct",
    domains: Annotated[int, typer.Option(min=2, max=16, help="Number of data-owner domains.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds.")] = 3,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Optimiser steps a round and domain.")] = 4,
    protection: Annotated[str, typer.Option(help=f"How updates leave: {', '.join(_LEVELS)}.")] = "sealed",
    bits: Annotated[int, typer.Option(min=4, max=16, help="Bits of a quantised value (sealed, masked).")] = 10,
    epsilon: Annotated[
        float | None, typer.Option(help="Differential privacy by patients: epsilon at each domain, such as 8.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, adapter and order of examples.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the adapter, report, history and ledgers go.")] = Path(
        "fedpriv-demo"
    ),
    report_to: Annotated[list[str] | None, typer.Option(help=REPORT_TO_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Run a real federated LoRA study on this machine: domains, approvals, rounds, release, report."""
    from fedpriv.experiments.demo import Demo, DemoOptions
    from fedpriv.researcher.trackers import tracker_names

    if protection not in _LEVELS:
        raise ConfigError(f"There is no protection {protection!r}", todo=f"choose one of {', '.join(_LEVELS)}")
    if epsilon is not None and not 0 < epsilon <= 100:
        raise ConfigError(f"An epsilon of {epsilon:g} means nothing", todo="choose a number above 0, up to 100")
    console = Console(stderr=as_json)
    options = DemoOptions(
        mimic=mimic,
        model=model,
        domains=domains,
        rounds=rounds,
        steps=steps,
        protection=cast("ProtectionLevel", protection),
        bits=bits,
        epsilon=epsilon,
        seed=seed,
        out=out,
        report_to=tracker_names(report_to),
    )

    def say(sentence: str) -> None:
        console.print(f"[dim]•[/] {escape(sentence)}", highlight=False)

    with StudyView(console) as view:
        result = Demo(options=options, say=say, on_progress=view.show_stage).run(view)
    if as_json:
        typer.echo(json.dumps(result.as_json()))
        return
    _print_tables(console, result)
    console.print(
        f"Report: [bold]{escape(str(out / 'report.html'))}[/]   adapter: [bold]{escape(str(result.adapter))}[/]"
    )


def _print_tables(console: Console, result: DemoResult) -> None:
    summary, loss = result.as_json(), result.finished
    table = Table("held-out loss", "all patients", "own, alone", "own, federated", title="Does it learn?")
    table.add_row("before (base model)", f"{loss.loss_before:.4f}")
    table.add_row("[bold]federated adapter[/]", f"[bold]{loss.loss_after:.4f}[/]")
    for name, alone in result.alone.items():
        own = summary["loss"]["own_examples"][name]
        table.add_row(f"{escape(name)} alone", f"{alone.everybody:.4f}", f"{own['alone']:.4f}", f"{own['after']:.4f}")
    table.add_row("domains alone, mean", f"{result.alone_mean:.4f}")
    console.print(table)
    if result.spent:
        spent = ", ".join(f"{name} {charge.epsilon_study:.2f}" for name, charge in result.spent.items())
        console.print(
            f"Differential privacy by patients, epsilon spent: {escape(spent)}; held-out losses have no noise."
        )
    size = summary["bytes"]
    table = Table("", "bytes", "against plain fp32", title="What a round sends, for each domain")
    for label, name in (("up: sealed update", "up"), ("down: sealed aggregate", "down"), ("plain fp32", "plain_fp32")):
        table.add_row(label, f"{size[name]:,}", f"{size[name] / size['plain_fp32']:.2f} x")
    console.print(table)
    table = Table("", "seconds", title="Where the time of a round goes (mean)")
    for name in ("train", "seal", "transfer", "confirm", "aggregate", "open", "wall"):
        table.add_row(name, f"{summary['seconds']['round'].get(name, 0.0):.2f}")
    console.print(table)
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    console.print(f"Whole demo: {stages}.")
