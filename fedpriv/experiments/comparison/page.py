"""The page of a comparison: the figures, the table behind them, and what they do and do not say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from plotly.io import to_html

from fedpriv import __version__
from fedpriv.experiments.comparison.charts import Chart, web_figure
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.summary import Row
from fedpriv.experiments.target import Target
from fedpriv.files import write_atomic

_TEMPLATE = Path(__file__).with_name("page.html")
_MET = {True: ("yes", "✓ met"), False: ("no", "✗ missed"), None: ("", "not measured")}
_HOLDS = {True: ("yes", "✓ holds"), False: ("no", "✗ does not hold"), None: ("", "not measured")}


def write_page(
    path: Path,
    *,
    charts: Sequence[Chart],
    rows: Sequence[Row],
    targets: Sequence[Target],
    claims: Sequence[Target],
    manifest: dict[str, Any],
) -> Path:
    """Write one self-contained HTML page; it needs no network to be read."""
    drawn = "".join(
        to_html(
            web_figure(chart),
            full_html=False,
            include_plotlyjs=number == 0,
            config={"displaylogo": False, "responsive": True},
        )
        for number, chart in enumerate(charts)
    )
    settings, versions, machine = (manifest[part] for part in ("settings", "versions", "machine"))
    facts = {
        "Command": manifest["command"],
        "Base model": settings["model"],
        "Tables": settings["tables"],
        "Rounds x steps, tokens of an example": f"{settings['rounds']} x {settings['steps']}, {settings['max_tokens']}",
        "Machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(headline(rows)),
        figures=drawn,
        seeds=max((row.seeds for row in rows), default=0),
        rows="".join(map(_row, rows)),
        targets="".join(_target(target, _MET) for target in targets),
        claims="".join(_target(claim, _HOLDS) for claim in claims),
        facts="".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items()
        ),
        version=escape(__version__),
    )
    write_atomic(path, page.encode(), mode=0o644)
    return path


def headline(rows: Sequence[Row]) -> str:
    """Return the comparison in two sentences, as far as it was measured."""
    by = {row.method: row for row in rows}
    own, fl, he = (by.get(name) for name in ("fedpriv", "fl", "he-fl"))
    if own is None or fl is None:
        return f"{len(rows)} methods were measured; FL and fedpriv are needed to say more."
    said = [f"fedpriv sends {own.bytes_up / fl.bytes_up:.2f} times what plain FL sends"]
    if he is not None:
        said.append(f"{he.bytes_up / own.bytes_up:.0f} times less than HE-FL")
    said.append(f"and ends at a held-out loss of {own.loss:.4f} where FL ends at {fl.loss:.4f}")
    sentence = ", ".join(said) + "."
    if own.leakage_outside is not None and fl.leakage_outside is not None:
        sentence += (
            f" From one plain step on one note the attack reads {fl.leakage_outside:.0%} of what tells, above chance; "
            f"from the same step under fedpriv {own.leakage_outside:.0%}."
        )
    return sentence


def _row(row: Row) -> str:
    auroc = "-" if row.auroc is None else f"{row.auroc:.2f} ± {row.auroc_se or 0:.2f}"
    spread = f"{row.loss:.4f} ({row.least_loss:.4f} to {row.most_loss:.4f})"
    cells = [
        spread,
        f"{row.perplexity:.2f}",
        auroc,
        f"{row.bytes_up:,.0f}",
        f"{row.bytes_down:,.0f}",
        f"{row.training_cpu_s:.1f}",
        f"{row.other_cpu_s:.1f}",
        f"{row.wall_s:.1f}",
        f"{row.peak_mb:,.0f}",
        _percent(row.leakage_outside),
        _percent(row.leakage_inside),
    ]
    method = METHODS[row.method]
    title = f'<th scope="row" title="{escape(method.about)}">{escape(method.title)}</th>'
    numbers = "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
    return f"<tr>{title}{numbers}</tr>"


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.0%}"


def _target(target: Target, words: dict[bool | None, tuple[str, str]]) -> str:
    colour, met = words[target.met]
    cells = "".join(f"<td>{escape(text)}</td>" for text in (target.what, target.wanted, target.measured))
    return f'<tr>{cells}<td class="{colour}">{met}</td></tr>'
