"""Charts for a page that answers the mouse, by plotly: each panel a figure of its own, as wide as there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedpriv.experiments.comparison.charts import QUIET, Panel, Series, value_range

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
_DASHES = ("dash", "dot", "dashdot")


def web_figure(panel: Panel) -> go.Figure:
    """Return a panel for plotly. Its title is the page's part, and so are the colours of text and axes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    if panel.kind == "lines":
        _lines(figure, panel)
    else:
        _rows(figure, panel)
    several = len(panel.series) + len(panel.levels) > 1
    figure.update_layout(
        template="simple_white",
        barmode="stack" if panel.stacked else "overlay",
        height=_pixels(panel) + (34 if several else 0),
        font={"family": "system-ui, sans-serif", "size": 14},
        showlegend=several,
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        margin={"l": 10, "r": 10, "t": 10, "b": 90 if several else 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"size": 14}},
    )
    return figure


def _pixels(panel: Panel) -> int:
    if panel.kind == "lines":
        return 340
    return 90 + max(34, (14 if panel.kind == "dots" else 24) * panel.count) * len(panel.places)


def _rows(figure: go.Figure, panel: Panel) -> None:
    """Add bars or dots, the first place on top, each row's words at its right end."""
    import plotly.graph_objects as go

    for number, series in enumerate(panel.series):
        figure.add_trace(_row_trace(panel, series, number))
    figure.add_trace(go.Scatter(x=[None], y=[None], yaxis="y2", showlegend=False, hoverinfo="skip"))
    rows, words = zip(*panel.told(), strict=True)
    edge = {
        "range": [len(panel.places) - 0.5, -0.5],
        "automargin": True,
        "showline": False,
        "ticks": "",
        "ticklabelstandoff": 6,
    }
    figure.update_layout(
        yaxis={**edge, "tickvals": list(range(len(panel.places))), "ticktext": panel.labels()},
        yaxis2={**edge, "overlaying": "y", "side": "right", "tickvals": rows, "ticktext": words},
        xaxis={"title": _axis_title(panel.value_title), "type": "log" if panel.log_values else "linear"},
    )
    if panel.share:
        figure.update_xaxes(tickformat=".0%")
    if panel.log_values:
        figure.update_xaxes(dtick=1, tickformat=",~g")
    elif panel.kind == "dots":
        figure.update_xaxes(range=value_range(panel), showgrid=True)
    else:
        figure.update_xaxes(zeroline=True, zerolinecolor=QUIET, zerolinewidth=1)


def _row_trace(panel: Panel, series: Series, number: int) -> Any:
    import plotly.graph_objects as go

    known = {"x": list(series.values), "y": panel.rows(number), "name": series.name, "customdata": panel.labels()}
    value = "%{x:.1%}" if panel.share else "%{x:,.4~g}"
    hover = f"%{{customdata}}, {series.name}: {value}<extra></extra>"
    colour = panel.colour(number)
    if panel.kind == "dots":
        mark = {"symbol": _MARKS[number % 7], "size": 9, "color": colour}
        return go.Scatter(**known, mode="markers", marker=mark, hovertemplate=hover)
    return go.Bar(
        **known,
        orientation="h",
        width=panel.height * 0.9,
        marker={"color": colour, "line": {"width": 0}},
        error_x=_bounds(series),
        hovertemplate=hover,
    )


def _lines(figure: go.Figure, panel: Panel) -> None:
    import plotly.graph_objects as go

    for number, series in enumerate(panel.series):
        colour = panel.colour(number)
        figure.add_trace(
            go.Scatter(
                x=list(panel.places),
                y=list(series.values),
                name=series.name,
                mode="lines+markers",
                marker={"symbol": _MARKS[number % 7], "size": 9},
                line={"color": colour},
                error_y=_bounds(series, colour),
            )
        )
    for number, level in enumerate(panel.levels):
        ends = [panel.places[0], panel.places[-1]]
        line = {"color": panel.level_colour(number), "width": 1.5, "dash": _DASHES[number % 3]}
        figure.add_trace(go.Scatter(x=ends, y=[level.value] * 2, name=level.name, mode="lines", line=line))
    figure.update_xaxes(
        title=_axis_title(panel.place_title),
        type="log" if panel.log_places else "linear",
        tickvals=list(panel.places),
        ticktext=panel.labels(),
    )
    figure.update_yaxes(
        title=_axis_title(panel.value_title), automargin=True, type="log" if panel.log_values else "linear"
    )
    if not panel.log_values:
        figure.update_yaxes(range=value_range(panel))
    if panel.share:
        figure.update_yaxes(tickformat=".0%")


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}}


def _bounds(series: Series, colour: str = "") -> dict[str, Any] | None:
    errors = [series.error(place) for place in range(len(series.values))]
    if not any(low or high for low, high in errors):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [abs(high) for _, high in errors],
        "arrayminus": [abs(low) for low, _ in errors],
        "thickness": 1.5,
        "width": 3,
        **({"color": colour} if colour else {}),
    }
