"""``fedpriv bench``: what protection, the data owner's side and slow links cost, measured on this machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli.bench_view import judged_table, modes_table, print_protection, print_rounds, progress, targets_table
from fedpriv.files import private_folder, write_json
from fedpriv.training.device import DeviceChoice

if TYPE_CHECKING:
    pass


app = typer.Typer(name="bench", help="Measure, on this machine.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    pass


@app.command()
def protection(
    quick: Annotated[
        bool, typer.Option("--quick", help="The small update and fewer cases: half a minute, rough times.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that seal and open.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure bytes, time, memory and error of every level of protection, on the same updates.

    Each sum is compared with the sum of the quantised updates; a difference ends the benchmark with an error. Needs
    1 GB in the temporary folder, and about five minutes on two quiet cores; docs/benchmarks.md says what is measured.
    """
    from fedpriv.experiments.protection_bench import run_protection_bench

    with progress() as on_progress:
        report = run_protection_bench(
            quick=quick,
            workers=workers,
            on_progress=on_progress,
        )
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        print_protection(Console(), report)


@app.command()
def domain(
    model: Annotated[str, typer.Option(help="Base model of the round.")] = "smollm2-135m-instruct",
    entries: Annotated[int, typer.Option(min=1000, help="Length of the ledger that is verified.")] = 100_000,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what the data owner's side adds: tickets, starting a job, the gatekeeper, the ledger.

    Two domains run as processes of their own. Takes about two minutes; docs/benchmarks.md says what is measured.
    """
    from fedpriv.experiments.domain_bench import run_domain_bench, targets

    with progress() as on_progress:
        report = run_domain_bench(
            model=model,
            entries=entries,
            on_progress=on_progress,
        )
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    Console().print(targets_table(targets(report)))


@app.command()
def training(
    tables: Annotated[
        Path | None, typer.Option(metavar="DIR", help="MIMIC-III tables; synthetic ones without it.", file_okay=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Base model of the round.")] = "smollm2-135m-instruct",
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Optimiser steps of a run.")] = 6,
    max_tokens: Annotated[int, typer.Option(min=8, help="An example is cut after so many.")] = 512,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of every run.")] = 2,
    device: Annotated[DeviceChoice, typer.Option(help="What trains.")] = "cpu",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure tokens a second and memory of a local round beside transformers.Trainer with peft.

    Same examples, model, batch, steps and optimizer; every run is a process of its own. Takes about ten minutes;
    docs/benchmarks.md says what is measured.
    """
    from fedpriv.experiments.training_bench import run_training_bench, targets

    with progress() as on_progress:
        report = run_training_bench(
            model=model,
            tables=tables,
            batch_size=batch_size,
            steps=steps,
            max_tokens=max_tokens,
            repeats=repeats,
            threads=threads,
            device=device,
            on_progress=on_progress,
        )
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    view = Table("", "tokens a second", "peak memory, MB", "held-out loss")
    for name, side in report.sides.items():
        view.add_row(name, f"{side.median:.0f}", f"{side.peak_bytes / 1e6:.0f}", f"{side.heldout_loss:.4f}")
    Console().print(view)
    Console().print(targets_table(targets(report)))


@app.command()
def crosscloud(
    model: Annotated[str, typer.Option(help="Base model.")] = "smollm2-135m-instruct",
    mode: Annotated[list[str] | None, typer.Option(help="A mode beside the baseline; again for more. [all]")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of every study.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a round.")] = 4,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of LoRA, on every linear layer.")] = 16,
    rates: Annotated[str, typer.Option(help="Mbit/s of the domains' links.")] = "100,20,2",
    delays: Annotated[str, typer.Option(help="One-way delay of them, ms.")] = "10,50,150",
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the loss over time.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run one study across clouds in several modes: loss over wall clock, and bytes on every link.

    Each domain is a process in a network namespace behind its own slow link; the store is an OpenSSH server. Needs root
    and the package openssh-server; takes about ten minutes. docs/benchmarks.md says what is measured.
    """
    from fedpriv.experiments.crosscloud.bench import run_crosscloud_bench, targets
    from fedpriv.experiments.crosscloud.links import parse_links
    from fedpriv.experiments.crosscloud.modes import MODES

    links = parse_links(rates, delays)
    with progress() as on_progress:
        report = run_crosscloud_bench(
            model=model,
            links=links,
            modes=tuple(mode or MODES),
            rounds=rounds,
            steps=steps,
            rank=rank,
            on_progress=on_progress,
        )
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if picture is not None:
        from fedpriv.experiments.crosscloud.picture import write_picture

        write_picture(report, picture)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    Console().print(modes_table(report))
    Console().print(targets_table(targets(report)))


@app.command()
def rounds(
    model: Annotated[str, typer.Option(help="Base model of the rounds.")] = "smollm2-135m-instruct",
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller updates and fewer rounds: two minutes, rough times.")
    ] = False,
    without_flower: Annotated[
        bool, typer.Option("--without-flower", help="Do not compare with Flower, which is installed for it apart.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what rounds cost beside training, and how adding grows from 4 to 256 domains.

    Three domains run as processes of their own. Flower is installed once in an environment of its own (half a GB).
    Needs 4 GB in the temporary folder and about ten minutes on two quiet cores; docs/benchmarks.md says what is
    measured.
    """
    from fedpriv.experiments.rounds_bench import run_rounds_bench

    with progress() as on_progress:
        report = run_rounds_bench(model=model, quick=quick, with_flower=not without_flower, on_progress=on_progress)
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        print_rounds(Console(), report)


@app.command()
def data(
    quick: Annotated[
        bool, typer.Option("--quick", help="A twentieth of the size: half a minute, rough times.")
    ] = False,
    tables: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the made-up tables are kept for another run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Prepare a made-up MIMIC-III of full size (58,976 admissions, 2,083,180 notes, 4 GB), killed once on the way.

    Needs 10 GB in the temporary folder and about ten minutes on two quiet cores; docs/benchmarks.md says what is
    measured.
    """
    from fedpriv.experiments.data_bench import run_data_bench, targets

    with progress() as on_progress:
        report = run_data_bench(share=0.05 if quick else 1.0, folder=tables, on_progress=on_progress)
    if out is not None:
        write_json(out, report.as_json(), mode=0o644)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        Console().print(targets_table(targets(report)))


@app.command()
def flower(
    model: Annotated[str, typer.Option(help="Base model.")] = "tiny",
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Of the study.")] = 2,
    kill: Annotated[
        bool, typer.Option("--kill", help="Kill a SuperNode in the last round and start it again.")
    ] = False,
    simulate: Annotated[
        int, typer.Option(min=0, max=256, metavar="N", help="So many domains in Flower's simulation instead.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON object there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a study over a folder and over a Flower deployment with TLS, and compare adapters and times.

    Flower is installed once in an environment of its own (half a GB). --simulate needs the extra flower here.
    """
    from fedpriv.experiments.flower.deployment import compare_flower
    from fedpriv.experiments.flower.simulation import simulate as run_simulated

    with progress() as on_progress, tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as name:
        work = private_folder(Path(name).resolve())
        if simulate:
            report = run_simulated(work, domains=simulate, rounds=rounds, on_progress=on_progress).as_json()
        else:
            report = compare_flower(work, model=model, rounds=rounds, kill=kill, on_progress=on_progress).as_json()
    if out is not None:
        write_json(out, report, mode=0o644)
    if as_json:
        typer.echo(json.dumps(report))
        return
    view = Table("", "", show_header=False, box=None)
    for key, value in report.items():
        view.add_row(key, escape(json.dumps(value)))
    Console().print(view)


@app.command()
def figures(
    mimic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="MIMIC-III tables; synthetic ones without it.", file_okay=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Base model.")] = "smollm2-135m-instruct",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each method.")] = 3,
    rounds: Annotated[
        int, typer.Option(min=1, help="Of every study; sweeps of bytes and seconds have two at the most.")
    ] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of a round.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=8, help="An example is cut after so many.")] = 64,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this alone; again for more: methods, leakage, mortality, epsilon, domains, alpha, "
            "sealed-share or bits. [all]"
        ),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Compare this method; again for more. [all]")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Records, figures and page; what is there is not measured again.")
    ] = Path("fedpriv-figures"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the paper's figures: leakage by attack, communication and computation of nine methods on the same shards.

    Every number is measured: about half a day on two cores with SmolLM2-135M, less than one with --model tiny
    and --seeds 1. It can be ended at any moment and goes on from there. docs/leakage.md and docs/benchmarks.md say what
    is measured.
    """
    from fedpriv.cli.view import quieten_transformers
    from fedpriv.experiments.comparison.bench import PAGE, figures_options, run_figures

    given = {"mimic": mimic, "model": model, "seeds": seeds, "rounds": rounds, "steps": steps, "max_tokens": max_tokens}
    options = figures_options(out=out, parts=part or (), methods=method or (), **given)
    quieten_transformers()
    with progress() as on_progress:
        found = run_figures(options, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    console = Console()
    console.print(judged_table(found.targets, "target"))
    console.print(judged_table(found.claims, "what the paper claims"))
    console.print(f"The figures are in {out}; begin with {out / PAGE}", soft_wrap=True)
