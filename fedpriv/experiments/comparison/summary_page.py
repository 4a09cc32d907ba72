"""The comparison as Markdown, beside its figures: what a repository shows of the folder without a browser's help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpriv.experiments.comparison.charts import Panel
from fedpriv.experiments.comparison.judgement import RULE, Judged
from fedpriv.experiments.comparison.told import Table, Told, about, headline, how_to_read, tables_of
from fedpriv.files import write_atomic

_ALT = {
    "leakage": "Leakage rates by method, by who looks, and for DP-FL over epsilon",
    "communication": "Bytes that a domain sends, by method, and over bits and sealed share",
    "computation": "CPU seconds of all parties, by method, and over the number of domains",
    "quality": "Held-out loss by method and seed, and over epsilon, alpha and bits",
}


def write_summary(path: Path, told: Told) -> Path:
    """Write ``README.md``: pictures, tables, targets and claims; ``figures.html`` says more on how to read them."""
    settings, machine = told.manifest["settings"], told.manifest["machine"]
    lines = [
        "# The paper's comparisons, measured",
        "",
        headline(told.rows),
        "",
        f"Base model {settings['model']}, {settings['rounds']} rounds of {settings['steps']} steps, examples of up to "
        f"{settings['max_tokens']} tokens; {machine['processor']}, {machine['cores']} cores. Made by",
        "",
        f"    {told.manifest['command']}",
        "",
        "which goes on where it was ended; `manifest.json` has versions and the digest of every record in `runs/` and "
        "`leakage/`, `figures.json` all numbers. How each is taken is in fedpriv's docs/benchmarks.md and "
        "docs/leakage.md.",
        "",
    ]
    for chart in told.charts:
        lines += [f"## {chart.title}", "", f"![{_ALT.get(chart.name, chart.title)}]({chart.name}.svg)", ""]
        for panel in chart.panels:
            lines += _swept(panel) if panel.kind == "lines" else []
    lines += ["## All methods", "", how_to_read(told.rows), ""]
    for table in tables_of(told.rows):
        lines += [f"### {table.title}", "", *_table(table), ""]
    lines += ["## What had to be reached", "", RULE, "", *_judged(told.targets), ""]
    lines += [
        "## What the paper claims of its method",
        "",
        "It gives no definitions that can be run: only the order of methods can be held against it, by the same rule.",
        "",
        *_judged(told.claims),
        "",
    ]
    write_atomic(path, "\n".join(lines).encode(), mode=0o644)
    return path


def _table(table: Table) -> list[str]:
    lines = [_line(("method", *table.head)), _line(["---", *["---:"] * len(table.head)])]
    for row, cells in table.rows:
        title, _ = about(row)
        lines.append(_line((title, *(f"{c.text} ({c.small})" if c.small else c.text for c in cells))))
    return lines


def _swept(panel: Panel) -> list[str]:
    """Return the numbers of a sweep, which a picture does not say."""
    rows = [
        _line((series.name, *("-" if value is None else f"{value:.4g}" for value in series.values)))
        for series in panel.series
    ]
    head = [_line((f"{panel.place_title}:", *panel.labels())), _line(["---", *["---:"] * len(panel.places)])]
    return [f"{panel.title}, {panel.value_title}:", "", *head, *rows, ""]


def _judged(judged: Sequence[Judged]) -> list[str]:
    rows = [
        _line((each.what, each.wanted, each.measured, f"**{each.verdict}**" if _bad(each) else each.verdict))
        for each in judged
    ]
    return [_line(("", "wanted", "measured", "")), _line(["---"] * 4), *rows]


def _bad(judged: Judged) -> bool:
    return judged.verdict in ("missed", "does not hold")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
