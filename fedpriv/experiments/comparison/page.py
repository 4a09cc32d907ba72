"""The page of a comparison: the figures, the tables behind them, and what they do and do not say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from plotly.io import to_html

from fedpriv import __version__
from fedpriv.experiments.comparison.charts import Chart, Panel
from fedpriv.experiments.comparison.judgement import RULE, Judged, Verdict
from fedpriv.experiments.comparison.told import Cell, Table, Told, about, headline, how_to_read, tables_of
from fedpriv.experiments.comparison.web import web_figure
from fedpriv.files import write_atomic

_TEMPLATE = Path(__file__).with_name("page.html")
_SIGNS: dict[Verdict, tuple[str, str]] = {
    "met": ("yes", "✓ "),
    "holds": ("yes", "✓ "),
    "missed": ("no", "✗ "),
    "does not hold": ("no", "✗ "),
    "cannot be told": ("open", "? "),
    "not measured": ("open", ""),
}
_CONFIG = {"displayModeBar": False, "responsive": True}


def write_page(path: Path, told: Told) -> Path:
    """Write one self-contained HTML page; it needs no network to be read."""
    settings, versions, machine = (told.manifest[part] for part in ("settings", "versions", "machine"))
    facts = {
        "Command": told.manifest["command"],
        "Base model": settings["model"],
        "Tables": settings["tables"],
        "Rounds x steps, tokens of an example": f"{settings['rounds']} x {settings['steps']}, {settings['max_tokens']}",
        "Machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(headline(told.rows)),
        figures="".join(_chart(chart, first=number == 0) for number, chart in enumerate(told.charts)),
        how=escape(how_to_read(told.rows)),
        tables="".join(map(_table, tables_of(told.rows))),
        rule=escape(RULE),
        targets=_judged(told.targets, "What had to be reached"),
        claims=_judged(told.claims, "What the paper claims"),
        facts="".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
            for name, value in facts.items()
        ),
        version=escape(__version__),
    )
    write_atomic(path, page.encode(), mode=0o644)
    return path


def _chart(chart: Chart, *, first: bool) -> str:
    drawn = ""
    for line in chart.lines():
        panels = "".join(_panel(panel, library=first and panel is chart.panels[0]) for panel in line)
        drawn += f'<div class="panels">{panels}</div>'
    return f"<section><h2>{escape(chart.title)}</h2>{drawn}</section>"


def _panel(panel: Panel, *, library: bool) -> str:
    drawn = to_html(web_figure(panel), full_html=False, include_plotlyjs=library, config=_CONFIG)
    return f"<figure><figcaption>{escape(panel.title)}</figcaption>{drawn}</figure>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col" class="n">{escape(name)}</th>' for name in table.head)
    rows = []
    for row, cells in table.rows:
        title, what = about(row)
        first = f'<th scope="row" title="{escape(what)}">{escape(title)}</th>'
        rows.append(f"<tr>{first}{''.join(map(_cell, cells))}</tr>")
    return _scrolled(
        f'<caption>{escape(table.title)}</caption><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>",
        table.title,
    )


def _cell(cell: Cell) -> str:
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    return f'<td class="n">{escape(cell.text)}{small}</td>'


def _judged(judged: Sequence[Judged], name: str) -> str:
    head = "".join(f'<th scope="col">{word}</th>' for word in ("what", "wanted", "measured", "so"))
    return _scrolled(f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(_judged_row, judged))}</tbody>", name)


def _judged_row(judged: Judged) -> str:
    colour, sign = _SIGNS[judged.verdict]
    cells = "".join(f"<td>{escape(text)}</td>" for text in (judged.wanted, judged.measured))
    verdict = f'<td class="{colour}">{sign}{judged.verdict}</td>'
    return f'<tr><th scope="row">{escape(judged.what)}</th>{cells}{verdict}</tr>'


def _scrolled(table: str, name: str) -> str:
    """Return a table that a narrow window scrolls, by keys too."""
    return f'<div class="scrolled" tabindex="0" role="region" aria-label="{escape(name)}"><table>{table}</table></div>'
