"""What ``fedpriv bench`` shows in a terminal: a bar while it measures, and tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from fedpriv.experiments.comparison.judgement import Judged
    from fedpriv.experiments.crosscloud.bench import Report as CrosscloudReport
    from fedpriv.experiments.protection_bench import Report
    from fedpriv.experiments.rounds_bench import Report as RoundsReport
    from fedpriv.experiments.target import Target

_UNITS = (
    "size: parameters. up, down: bytes a parameter. seal: CPU ns a parameter. add: ns a parameter and client. "
    "open: ns a parameter. memory: MB over the base while sealing. error: of the mean, in standard deviations of an "
    "update. K: clients."
)

_STATES = {True: "[green]met[/]", False: "[red]missed[/]", None: "[yellow]not measured[/]"}


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Show a bar on standard error; give what is called with what is measured and the part that is done."""
    bar = Progress(
        BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task("getting ready", total=1.0)
        yield lambda what, done: bar.update(task, description=escape(what), completed=done)


def modes_table(report: CrosscloudReport) -> Table:
    view = Table(title="The same study across clouds", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("mode", "loss at the end", "seconds", "to the target", *(f"{d} up/down MB" for d in report.domains)):
        view.add_column(name, justify="left" if name == "mode" else "right")
    for mode in report.modes:
        reached = "never" if mode.seconds_to_target is None else f"{mode.seconds_to_target:.0f}"
        moved = (f"{mode.up_bytes[d] / 1e6:.1f} / {mode.down_bytes[d] / 1e6:.1f}" for d in report.domains)
        view.add_row(mode.mode, f"{mode.curve[-1].loss:.4f}", f"{mode.seconds:.0f}", reached, *moved)
    return view


def print_rounds(console: Console, report: RoundsReport) -> None:
    from fedpriv.experiments.rounds_bench import targets

    view = Table(title="Where a round's time goes beside training", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in (*report.overhead.parts, "all"):
        view.add_column(name, justify="right")
    view.add_row(*(f"{seconds:.3f}" for seconds in (*report.overhead.parts.values(), report.overhead.median_s)))
    console.print(view)
    console.print("seconds, medians of the rounds; open to answer: at the domain that answered last", style="dim")
    view = Table(title="Adding sealed updates", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("domains", "memory, MB", "seconds", "CPU seconds"):
        view.add_column(name, justify="right")
    for point in report.adding.points:
        view.add_row(str(point.domains), f"{point.memory_mb:.1f}", f"{point.seconds:.3f}", f"{point.cpu_s:.3f}")
    console.print(view)
    console.print(targets_table(targets(report)))
    if report.load > report.cores:
        console.print(
            f"{report.load:.0f} processes shared {report.cores} cores: times are longer than on a quiet machine",
            style="yellow",
        )


def targets_table(found: Iterable[Target]) -> Table:
    view = Table("target", "wanted", "measured", "")
    for target in found:
        view.add_row(escape(target.what), target.wanted, target.measured, _STATES[target.met])
    return view


def judged_table(found: Iterable[Judged], title: str) -> Table:
    colours = {"met": "green", "holds": "green", "missed": "red", "does not hold": "red"}
    view = Table(title, "wanted", "measured", "")
    for each in found:
        colour = colours.get(each.verdict, "yellow")
        view.add_row(escape(each.what), each.wanted, each.measured, f"[{colour}]{each.verdict}[/]")
    return view


def print_protection(console: Console, report: Report) -> None:
    from fedpriv.experiments.protection_bench import targets

    view = Table(title="What protection costs", box=None, padding=(0, 1, 0, 0), header_style="bold")
    view.add_column("scheme", no_wrap=True)
    for name in ("size", "K", "bits", "up", "down", "seal", "add", "open", "memory", "error"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("exact")
    for row in report.rows:
        view.add_row(
            row.scheme,
            f"{row.parameters / 1e6:.2f}M",
            str(row.clients),
            str(row.bits or ""),
            f"{row.up_bytes_per_parameter:.3f}",
            f"{row.down_bytes_per_parameter:.3f}",
            f"{row.seal_ns_per_parameter:.0f}",
            f"{row.aggregate_ns_per_parameter_client:.1f}",
            f"{row.open_ns_per_parameter:.0f}",
            "" if row.client_rss_mb is None else f"{row.client_rss_mb:.1f}",
            f"{row.rms_error:.1e}",
            "yes" if row.exact else "no",
        )
    console.print(view)
    console.print(_UNITS, style="dim")
    view = Table("against level sealed at 10 bits", *(f"K={name}" for name in report.ratios["plain_over_sealed_bytes"]))
    for name, values in report.ratios.items():
        if isinstance(values, dict):
            view.add_row(name.replace("_", " "), *("" if v is None else f"{v:.3g}" for v in values.values()))
    console.print(view)
    console.print(targets_table(targets(report)))
