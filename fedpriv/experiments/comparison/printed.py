"""Charts for print: PNG and SVG, by matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.experiments.comparison.charts import MARKS, QUIET, Chart, Panel, value_range
from fedpriv.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_WIDTH = 10.0
"""Inches: a page shows it with its letters about as large as its own."""

_INK = "#1b1b1b"
_DASHES = ("--", ":", "-.")


def write_pictures(chart: Chart, folder: Path) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg`` and return their paths."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = chart.lines()
    heights = [max(map(_inches, line)) for line in lines]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, fontsize=14, x=0.01, ha="left", weight="bold")
    parts = figure.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, line in zip(parts, lines, strict=True):
        for place, panel in zip(part.subfigures(1, len(line), squeeze=False)[0], line, strict=True):
            _drawn(place, panel)
    paths = []
    for kind in ("png", "svg"):
        data = io.BytesIO()
        # neither dates nor random names in a file: the same records give the same picture
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with mpl.rc_context({"svg.hashsalt": "fedpriv", "svg.fonttype": "none"}):  # the second: text stays text
            figure.savefig(data, format=kind, dpi=160, facecolor="white", metadata=metadata)
        paths.append(folder / f"{chart.name}.{kind}")
        write_atomic(paths[-1], data.getvalue(), mode=0o644)
    return paths


def _inches(panel: Panel) -> float:
    return (
        3.5
        if not panel.wide
        else 1.3 + max(0.3, (0.12 if panel.kind == "dots" else 0.19) * panel.count) * len(panel.places)
    )


def _drawn(place: SubFigure, panel: Panel) -> None:
    axes = place.subplots()
    axes.set_title(panel.title, fontsize=11, loc="left", pad=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9.5, length=3)
    if panel.kind == "lines":
        _lines(axes, panel)
    else:
        _rows(axes, panel)
    axes.set_xlabel(panel.place_title if panel.kind == "lines" else panel.value_title, fontsize=9.5)
    axes.set_ylabel(panel.value_title if panel.kind == "lines" else panel.place_title, fontsize=9.5)
    if len(panel.series) + len(panel.levels) > 1:
        place.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)


def _rows(axes: Axes, panel: Panel) -> None:
    """Draw bars or dots, the first place on top, each row's words at its right end."""
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    base = np.zeros(len(panel.places))
    for number, series in enumerate(panel.series):
        colour, rows = panel.colour(number), panel.rows(number)
        values = np.array([0.0 if value is None else value for value in series.values])
        if panel.kind == "dots":
            known = [place for place, value in enumerate(series.values) if value is not None]
            at = [rows[place] for place in known]
            axes.plot(values[known], at, MARKS[number % 7], color=colour, label=series.name, markersize=5)
            continue
        left = base if panel.stacked else None
        axes.barh(rows, values, height=panel.height * 0.9, left=left, color=colour, label=series.name)
        errors = np.array([series.error(place) for place in range(len(values))])
        if errors.any():
            shown = errors.any(axis=1)
            marks = {"fmt": "none", "ecolor": _INK, "elinewidth": 1, "capsize": 2}
            axes.errorbar(values[shown], np.array(rows)[shown], xerr=np.abs(errors[shown]).T, **marks)
        base = base + values if panel.stacked else base
    axes.set_yticks(range(len(panel.places)), panel.labels())
    axes.set_ylim(len(panel.places) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if panel.log_values:
        axes.set_xscale("log")
    if panel.share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if panel.kind == "dots":
        axes.set_xlim(*value_range(panel))
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.grid(axis="y", color=QUIET, linewidth=0.5, alpha=0.4)
        axes.set_axisbelow(True)
    elif not panel.log_values:
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.spines["left"].set_visible(False)
    told = axes.twinx()  # so that words line up, and lie on no bar
    told.set_ylim(axes.get_ylim())
    told.spines[:].set_visible(False)
    told.set_yticks(*map(list, zip(*panel.told(), strict=True)))
    told.tick_params(axis="y", length=0, labelsize=9)


def _lines(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import NullLocator, PercentFormatter

    for number, series in enumerate(panel.series):
        known = [place for place, value in enumerate(series.values) if value is not None]
        x, y = [panel.places[place] for place in known], [series.values[place] for place in known]
        colour = panel.colour(number)
        axes.plot(x, y, f"{MARKS[number % 7]}-", color=colour, label=series.name)  # pyright: ignore[reportArgumentType]
        if series.low and series.high:
            low, high = ([bound[place] for place in known] for bound in (series.low, series.high))
            axes.fill_between(x, low, high, color=colour, alpha=0.15)  # pyright: ignore[reportArgumentType]
    for number, level in enumerate(panel.levels):
        style = {"linewidth": 1.2, "linestyle": _DASHES[number % 3], "color": panel.level_colour(number)}
        axes.axhline(level.value, label=level.name, **style)
    if panel.log_places:
        axes.set_xscale("log")
    axes.set_xticks(list(panel.places), panel.labels())  # pyright: ignore[reportArgumentType]
    axes.xaxis.set_minor_locator(NullLocator())
    if panel.log_values:
        axes.set_yscale("log")
    else:
        axes.set_ylim(*value_range(panel))
        axes.ticklabel_format(axis="y", useOffset=False)
    if panel.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
