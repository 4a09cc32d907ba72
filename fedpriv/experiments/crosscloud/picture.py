"""The picture of a comparison across clouds: held-out loss over wall clock, one line a mode."""

from __future__ import annotations

from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.io import to_html

from fedpriv.experiments.crosscloud.bench import Report
from fedpriv.files import write_atomic

# Okabe and Ito's palette: told apart with colour-blind eyes; every line also has its own dashes.
_COLOURS = ("#767676", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
_DASHES = ("dash", "solid", "dot", "dashdot", "longdash", "longdashdot")


def write_picture(report: Report, path: Path) -> Path:
    """Write one HTML page with the picture to ``path``; it needs no network to be read."""
    figure = go.Figure()
    for number, mode in enumerate(report.modes):
        figure.add_scatter(
            x=[point.seconds for point in mode.curve],
            y=[point.loss for point in mode.curve],
            name=f"{mode.mode}: {mode.words}",
            mode="lines+markers",
            line={"color": _COLOURS[number % 6], "dash": _DASHES[number % 6], "width": 3},
            marker={"size": 9},
        )
    figure.add_hline(y=report.target_loss, line={"color": "#000000", "width": 1}, annotation_text="target loss")
    figure.update_layout(
        template="simple_white",
        height=520,
        xaxis_title="seconds since the rounds began",
        yaxis_title="held-out loss (nats a token)",
        legend={"orientation": "h", "y": 1.15, "x": 0},
        font={"family": "system-ui, sans-serif", "size": 14},
    )
    links = "; ".join(f"{name} {words}" for name, words in report.links.items())
    body = to_html(figure, full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Across clouds</title>'
        f"<h1>The same study over slow links</h1><p>{escape(report.model)}. {escape(links)}.</p>{body}</html>\n"
    )
    write_atomic(path, page.encode(), mode=0o644)
    return path
