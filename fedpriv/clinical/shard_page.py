"""The page that shows how shards differ: one self-contained HTML file with pictures, and no count under 10."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.subplots import make_subplots

from fedpriv import __version__
from fedpriv.clinical.rows import Rows
from fedpriv.clinical.shard_profile import (
    SMALLEST_COUNT,
    VARIABLES,
    ShardProfile,
    distance,
    distances,
    profiles,
    shown,
)
from fedpriv.clinical.shards import Shard, in_no_shard
from fedpriv.files import write_atomic

_TEMPLATE = Path(__file__).with_name("shard_page.html")
_BLUE = "#0072B2"
_SCALE = [[0.0, "#ffffff"], [1.0, _BLUE]]  # light to dark: read by brightness; every cell has its number as text
_FONT = {"family": "system-ui, sans-serif", "size": 14}


def write_shard_page(tables: Rows, shards: Sequence[Shard], path: Path) -> Path:
    """Write the page about ``shards`` to ``path`` and return it; it is for its owner only.

    Parameters
    ----------
    tables : Rows
        The tables that were divided.
    shards : sequence of Shard
        At least one.
    path : Path
        The file.
    """
    found = profiles(tables, shards)
    drawn = [_distances(found), *(_mixture(found, variable) for variable in VARIABLES)]
    pictures = [
        to_html(
            figure,
            full_html=False,
            include_plotlyjs=number == 0,
            config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        )
        for number, figure in enumerate(drawn)
    ]
    headings = (f"<h2>{escape(words[0].upper() + words[1:])}</h2>" for words in VARIABLES.values())
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(_headline(in_no_shard(tables, shards), len(shards))),
        shards="\n".join(_row(shard, profile) for shard, profile in zip(shards, found, strict=True)),
        distances=pictures[0],
        mixtures="\n".join(heading + picture for heading, picture in zip(headings, pictures[1:], strict=True)),
        version=escape(__version__),
    )
    write_atomic(path, page.encode())
    return path


def at_least(count: int) -> str:
    """Return a count as it may be shown: ``<10`` if it is smaller."""
    return f"<{SMALLEST_COUNT}" if count < SMALLEST_COUNT else f"{count:,}"


def _headline(missing: int, shards: int) -> str:
    lost = f"{at_least(missing)} patients are in none of them" if missing else "every patient is in one of them"
    return f"{shards} shard{'' if shards == 1 else 's'}; {lost}, and no patient is in two."


def _row(shard: Shard, profile: ShardProfile) -> str:
    cells = "".join(f'<td class="number">{escape(at_least(n))}</td>' for n in (profile.patients, profile.admissions))
    return f"<tr><td>{escape(shard.name)}</td><td>{escape(shard.words)}</td>{cells}</tr>"


def _distances(found: Sequence[ShardProfile]) -> go.Figure:
    """Draw how far apart shards are: the mean over pairs for each variable, and each pair over all variables."""
    names = [profile.name for profile in found]
    means = distances(found) or dict.fromkeys(VARIABLES, 0.0)
    pairs = np.array([[_mean_distance(one, other) for other in found] for one in found])
    figure = make_subplots(rows=1, cols=2, column_widths=[0.5, 0.5], horizontal_spacing=0.14)
    figure.add_bar(
        x=[round(value, 2) for value in means.values()],
        y=list(means),
        orientation="h",
        marker_color=_BLUE,
        text=[f"{value:.2f}" for value in means.values()],
        textposition="outside",
        cliponaxis=False,
        row=1,
        col=1,
    )
    figure.add_heatmap(
        z=pairs.round(2), x=names, y=names, text=[[f"{value:.2f}" for value in line] for line in pairs],
        texttemplate="%{text}", colorscale=_SCALE, zmin=0, zmax=1, showscale=False, xgap=2, ygap=2, row=1, col=2,
    )  # fmt: skip
    figure.update_xaxes(range=[0, 1.08], title="distance, mean over pairs", row=1, col=1)
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(template="simple_white", height=max(340, 120 + 30 * len(names)), font=_FONT, margin={"t": 20})
    return figure


def _mean_distance(one: ShardProfile, other: ShardProfile) -> float:
    return float(np.mean([distance(one.counts[variable], other.counts[variable]) for variable in VARIABLES]))


def _mixture(found: Sequence[ShardProfile], variable: str) -> go.Figure:
    """Draw a variable's mixture in each shard; a hidden count is a cell without a colour."""
    categories = list(found[0].counts[variable])
    shares: list[list[float | None]] = []
    words: list[list[str]] = []
    for profile in found:
        counts, visible = profile.counts[variable], shown(profile.counts[variable])
        whole = _whole(profile, variable) or 1
        shares.append([None if visible[name] is None else round(counts[name] / whole, 3) for name in categories])
        words.append(
            [
                f"<{SMALLEST_COUNT}" if counts[name] < SMALLEST_COUNT else "hidden" if share is None else f"{share:.0%}"
                for name, share in zip(categories, shares[-1], strict=True)
            ]
        )
    figure = go.Figure()
    figure.add_heatmap(
        z=shares, x=[_wrapped(name) for name in categories], y=[profile.name for profile in found], text=words,
        texttemplate="%{text}", hovertemplate="%{y}, %{x}: %{text}<extra></extra>", hoverongaps=False,
        colorscale=_SCALE, zmin=0, zmax=1, showscale=False, xgap=2, ygap=2,
    )  # fmt: skip
    for line, texts in enumerate(words):
        for column, text in enumerate(texts):
            if shares[line][column] is None:  # a cell without a value has no text of its own
                figure.add_annotation(x=column, y=line, text=text, showarrow=False, font={"color": "#555555"})
    # Ranges are given: without a single colour, nothing else would bring the axes' names.
    rows, columns = [profile.name for profile in found], [_wrapped(name) for name in categories]
    figure.update_yaxes(type="category", categoryarray=rows, range=[len(rows) - 0.5, -0.5])
    figure.update_xaxes(type="category", categoryarray=columns, range=[-0.5, len(columns) - 0.5], tickangle=0)
    height = 110 + 36 * len(found) + 18 * max(_wrapped(name).count("<br>") for name in categories)
    figure.update_layout(template="simple_white", height=height, font=_FONT, margin={"t": 15, "b": 60})
    return figure


def _whole(profile: ShardProfile, variable: str) -> int:
    """Return what a share is of: patients or admissions, as the variable's words say."""
    return profile.patients if "(patients)" in VARIABLES[variable] else profile.admissions


def _wrapped(name: str) -> str:
    """Return a category with a line break after about fourteen characters, for the axis."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) > 13:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(escape(line) for line in lines)
