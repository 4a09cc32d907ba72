"""The comparison as Markdown, beside its figures: what a repository shows of the folder without a browser's help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpriv.experiments.comparison.charts import Chart
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.page import headline
from fedpriv.experiments.comparison.summary import Row
from fedpriv.experiments.target import Target
from fedpriv.files import write_atomic

_ALT = {
    "leakage": "Leakage rates by method, by who looks, and for DP-FL over epsilon",
    "communication": "Bytes that a domain sends, by method, and over bits and sealed share",
    "computation": "CPU seconds of all parties, by method, and over the number of domains",
    "quality": "Held-out loss by method and seed, and over epsilon, alpha and bits",
}


def write_summary(
    path: Path,
    *,
    charts: Sequence[Chart],
    rows: Sequence[Row],
    targets: Sequence[Target],
    claims: Sequence[Target],
    manifest: dict[str, Any],
) -> Path:
    """Write ``README.md``: pictures, the table, targets and claims; ``figures.html`` says how to read them."""
    settings, machine = manifest["settings"], manifest["machine"]
    lines = [
        "# The paper's comparisons, measured",
        "",
        headline(rows),
        "",
        f"Base model {settings['model']}, {settings['rounds']} rounds of {settings['steps']} steps, examples of up to "
        f"{settings['max_tokens']} tokens; {machine['processor']}, {machine['cores']} cores. Made by",
        "",
        f"    {manifest['command']}",
        "",
        "which goes on where it was ended; `manifest.json` has versions and the digest of every record in `runs/` and "
        "`leakage/`, `figures.json` all numbers. How each is taken is in fedpriv's docs/benchmarks.md and "
        "docs/leakage.md.",
        "",
    ]
    for chart in charts:
        lines += [f"## {chart.title}", "", f"![{_ALT.get(chart.name, chart.title)}]({chart.name}.svg)", ""]
    lines += ["## All methods", "", *_methods(rows), ""]
    lines += ["## What had to be reached", "", *_targets(targets, ("met", "**missed**")), ""]
    lines += [
        "## What the paper claims of its method",
        "",
        "It gives no definitions that can be run, so that only the order of methods can be held against it.",
        "",
        *_targets(claims, ("holds", "**does not hold**")),
        "",
    ]
    write_atomic(path, "\n".join(lines).encode(), mode=0o644)
    return path


def _methods(rows: Sequence[Row]) -> list[str]:
    head = (
        "method",
        "seeds",
        "held-out loss (range)",
        "perplexity",
        "mortality AUROC",
        "bytes up a round",
        "CPU s, training",
        "CPU s, beside it",
        "wall s",
        "memory of a process, MB",
        "leakage: aggregator, store",
        "leakage: a colluding domain",
    )
    table = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        auroc = "-" if row.auroc is None else f"{row.auroc:.2f} ± {row.auroc_se or 0:.2f}"
        cells = (
            METHODS[row.method].title,
            str(row.seeds),
            f"{row.loss:.4f} ({row.least_loss:.4f} to {row.most_loss:.4f})",
            f"{row.perplexity:.2f}",
            auroc,
            f"{row.bytes_up:,.0f}",
            f"{row.training_cpu_s:.1f}",
            f"{row.other_cpu_s:.1f}",
            f"{row.wall_s:.0f}",
            f"{row.peak_mb:,.0f}",
            _percent(row.leakage_outside),
            _percent(row.leakage_inside),
        )
        table.append(_line(cells))
    return table


def _targets(targets: Sequence[Target], words: tuple[str, str]) -> list[str]:
    states = {True: words[0], False: words[1], None: "not measured"}
    rows = [_line((target.what, target.wanted, target.measured, states[target.met])) for target in targets]
    return [_line(("", "wanted", "measured", "")), _line(["---"] * 4), *rows]


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.0%}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
