"""Charts as data, drawn twice: with matplotlib for print (PNG, SVG), with plotly for a page that answers the mouse."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedpriv.files import write_atomic

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart with colour-blind eyes; bars also carry their numbers, lines their marks.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#767676")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_WEB_MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One colour of a panel: a value for each place, None where there is none.

    ``low`` and ``high`` bound an interval; ``words`` stand beside bars in place of their numbers.
    """

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    words: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    kind : str
        ``bars``: one group for each of ``places``, lying; with ``stacked``, a group is one bar of parts. ``lines``:
        over the numbers in ``places``. ``dots``: like bars, but each value a dot, for runs that repeat one another.
    log_places, log_values : bool
        Logarithmic axes.
    levels : dict of float
        Lines across for comparison, by name (``lines`` only).
    """

    title: str
    kind: Literal["bars", "lines", "dots"]
    places: Sequence[str] | Sequence[float]
    series: Sequence[Series]
    place_title: str = ""
    value_title: str = ""
    stacked: bool = False
    log_places: bool = False
    log_values: bool = False
    levels: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure: its file's name, what it shows in a sentence, and its panels from left to right."""

    name: str
    title: str
    panels: Sequence[Panel]


# -- for print ---------------------------------------------------------------------------------------------------------


def write_pictures(chart: Chart, folder: Path) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg`` and return their paths."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = max(len(panel.places) * (1 if panel.stacked else len(panel.series)) for panel in chart.panels)
    figure = Figure(figsize=(6.2 * len(chart.panels), max(4.4, 0.3 * places + 1.6)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, fontsize=13)
    for number, panel in enumerate(chart.panels, 1):
        _axes(figure.add_subplot(1, len(chart.panels), number), panel)
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


def _axes(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.kind == "lines":
        _printed_lines(axes, panel)
    else:
        _printed_rows(axes, panel)
    if len(panel.series) + len(panel.levels) > 1:  # below: within, it would hide what is there
        axes.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def _printed_rows(axes: Axes, panel: Panel) -> None:
    """Draw bars or dots, the first place on top."""
    import numpy as np

    count = 1 if panel.stacked or panel.kind == "dots" else len(panel.series)
    height = 0.8 / count
    rows = np.arange(len(panel.places))
    base = np.zeros(len(panel.places))
    for number, series in enumerate(panel.series):
        values = np.array([0.0 if value is None else value for value in series.values])
        at = rows + (0.0 if count == 1 else (number - (count - 1) / 2) * height)
        colour = COLOURS[number % len(COLOURS)]
        if panel.kind == "dots":
            known = [place for place, value in enumerate(series.values) if value is not None]
            axes.plot(values[known], at[known], _MARKS[number % 7], color=colour, label=series.name, alpha=0.85)
            continue
        left = base if panel.stacked else None
        axes.barh(at, values, height=height * 0.92, left=left, color=colour, label=series.name)
        if series.low and series.high:
            error = np.abs(np.array([_error(series, place) for place in range(len(values))])).T
            axes.errorbar(values, at, xerr=error, fmt="none", ecolor="#1b1b1b", elinewidth=1, capsize=2)
        base = base + values if panel.stacked else base
        if not panel.stacked or number == len(panel.series) - 1:
            ends = base if panel.stacked else np.maximum(values, [h or 0.0 for h in series.high] if series.high else 0)
            for place, words in enumerate(_words(series)):
                axes.annotate(words, (ends[place], at[place]), (4, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(rows, [str(place) for place in panel.places])
    axes.invert_yaxis()
    if panel.log_values:
        axes.set_xscale("log")
    axes.margins(x=0.18)
    axes.set_xlabel(panel.value_title)
    axes.set_ylabel(panel.place_title)


def _printed_lines(axes: Axes, panel: Panel) -> None:
    for number, series in enumerate(panel.series):
        known = [place for place, value in enumerate(series.values) if value is not None]
        x, y = [panel.places[place] for place in known], [series.values[place] for place in known]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, y, f"{_MARKS[number % 7]}-", color=colour, label=series.name)  # pyright: ignore[reportArgumentType]
        if series.low and series.high:
            low, high = ([bound[place] for place in known] for bound in (series.low, series.high))
            axes.fill_between(x, low, high, color=colour, alpha=0.15)  # pyright: ignore[reportArgumentType]
    for number, (name, level) in enumerate(panel.levels.items()):
        axes.axhline(level, color="#1b1b1b", linewidth=1, linestyle=("--", ":", "-.")[number % 3], label=name)
    if panel.log_places:
        axes.set_xscale("log")
    if panel.log_values:
        axes.set_yscale("log")
    else:
        axes.set_ylim(*least_range(panel, axes.get_ylim()))
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(panel.place_title)
    axes.set_ylabel(panel.value_title)


def least_range(panel: Panel, limits: tuple[float, float]) -> tuple[float, float]:
    """Return limits that are two hundredths of the values apart or more: else differences of nothing look large."""
    values = [abs(value) for series in panel.series for value in series.values if value is not None]
    low, high = limits
    missing = max(0.0, 0.02 * max(values, default=0.0) - (high - low))
    return low - missing / 2, high + missing / 2


# -- for a page --------------------------------------------------------------------------------------------------------


def web_figure(chart: Chart) -> go.Figure:
    """Return the chart for plotly."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=len(chart.panels),
        subplot_titles=[panel.title for panel in chart.panels],
        horizontal_spacing=0.16,
    )
    for column, panel in enumerate(chart.panels, 1):
        for number, series in enumerate(panel.series):
            figure.add_trace(_trace(panel, series, number), row=1, col=column)
        for name, level in panel.levels.items():
            figure.add_hline(level, row=1, col=column, line={"width": 1, "dash": "dash"}, annotation_text=name)  # pyright: ignore[reportArgumentType]
        values, places = ("y", "x") if panel.kind == "lines" else ("x", "y")
        update = {"x": figure.update_xaxes, "y": figure.update_yaxes}
        update[values](title_text=panel.value_title, type="log" if panel.log_values else "linear", row=1, col=column)
        if panel.kind == "lines" and not panel.log_values:
            known = [value for series in panel.series for value in series.values if value is not None]
            bounds = [bound for s in panel.series for bound in (*s.low, *s.high) if bound is not None]
            every = [*known, *bounds, *panel.levels.values()]
            spare = 0.06 * (max(every) - min(every))
            figure.update_yaxes(range=least_range(panel, (min(every) - spare, max(every) + spare)), row=1, col=column)
        kind = ("log" if panel.log_places else "linear") if panel.kind == "lines" else "category"
        update[places](title_text=panel.place_title, type=kind, row=1, col=column)
        if panel.kind != "lines":
            figure.update_yaxes(autorange="reversed", automargin=True, row=1, col=column)
    places = max(len(panel.places) for panel in chart.panels)
    figure.update_layout(
        template="simple_white",
        title_text=chart.title,
        barmode="stack" if any(panel.stacked for panel in chart.panels) else "group",
        height=max(460, 44 * places + 160),
        font={"family": "system-ui, sans-serif", "size": 14},
        legend={"orientation": "h", "y": -0.2, "x": 0},
        margin={"l": 10, "r": 20, "t": 90, "b": 60},
    )
    return figure


def _trace(panel: Panel, series: Series, number: int) -> Any:
    import plotly.graph_objects as go

    colour = COLOURS[number % len(COLOURS)]
    places = [str(place) for place in panel.places] if panel.kind != "lines" else list(panel.places)
    values = list(series.values)
    bounds: dict[str, Any] | None = None
    if series.low and series.high:
        errors = [_error(series, place) for place in range(len(values))]
        bounds = {
            "type": "data",
            "symmetric": False,
            "array": [abs(high) for _, high in errors],
            "arrayminus": [abs(low) for low, _ in errors],
            "thickness": 1,
        }
    if panel.kind == "lines":
        mark = {"symbol": _WEB_MARKS[number % 7], "size": 9}
        return go.Scatter(
            x=places, y=values, name=series.name, mode="lines+markers", marker=mark, line_color=colour, error_y=bounds
        )
    if panel.kind == "dots":
        mark = {"symbol": _WEB_MARKS[number % 7], "size": 10, "color": colour}
        return go.Scatter(x=values, y=places, name=series.name, mode="markers", marker=mark)
    words = list(_words(series)) if not panel.stacked else None
    return go.Bar(
        x=values,
        y=places,
        name=series.name,
        orientation="h",
        marker_color=colour,
        text=words,
        textposition="outside",
        cliponaxis=False,
        error_x=bounds,
    )


def _error(series: Series, place: int) -> tuple[float, float]:
    """Return how far the bounds are from the value, below and above; nothing where something is missing."""
    value, low, high = series.values[place], series.low[place], series.high[place]
    return (0.0, 0.0) if value is None or low is None or high is None else (value - low, high - value)


def _words(series: Series) -> Sequence[str]:
    return series.words or ["not measured" if value is None else f"{value:.3g}" for value in series.values]
