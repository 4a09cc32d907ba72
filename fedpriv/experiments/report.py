"""The demo's report: one self-contained HTML page with pictures, for people."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.io import to_html

from fedpriv import __version__
from fedpriv.domain.approval import limits_in_words
from fedpriv.files import write_atomic

if TYPE_CHECKING:
    from fedpriv.experiments.demo import DemoResult

# Okabe and Ito's palette: told apart with colour-blind eyes; every bar also carries its number as text.
_BLUE, _ORANGE, _GREEN, _GREY, _PURPLE = "#0072B2", "#E69F00", "#009E73", "#767676", "#CC79A7"
_WHO_SAW = {
    "sealed": "nobody could read a single update: only their sum was opened, by the domains",
    "masked": "the researcher could read their sum, but no single update",
    "ckks": "the researcher could not read the updates (a baseline: no masks between the domains)",
    "ckks-tuned": "the researcher could not read the updates (a baseline, tuned: no masks between the domains)",
    "plain": "the updates were NOT protected from the researcher (a baseline)",
}
_TEMPLATE = Path(__file__).with_name("report.html")


def write_report(result: DemoResult, out: Path) -> Path:
    """Write ``report.html`` to ``out`` and return its path. It needs no network to be read."""
    summary = result.as_json()
    figures = [_losses(result), _losses_by_domain(result), _bytes(summary), _seconds(summary)]
    drawn = [
        to_html(
            figure,
            full_html=False,
            include_plotlyjs=number == 0,
            config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        )
        for number, figure in enumerate(figures)
    ]
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(_headline(result, summary)),
        facts=_facts(result),
        loss_figure=drawn[0],
        domain_figure=drawn[1],
        bytes_figure=drawn[2],
        seconds_figure=drawn[3],
        rounds=_rounds(result),
        decisions=_decisions(result),
        version=escape(__version__),
    )
    path = out / "report.html"
    write_atomic(path, page.encode(), mode=0o644)
    return path


def _headline(result: DemoResult, summary: dict[str, Any]) -> str:
    loss = result.finished
    ratio = summary["bytes"]["up"] / summary["bytes"]["plain_fp32"]
    verb = "fell" if loss.loss_after < loss.loss_before else "did not fall"
    return (
        f"{len(result.names)} domains trained one adapter in {len(result.rounds)} rounds; no note left its domain, and "
        f"{_WHO_SAW[result.options.protection]}. The held-out loss {verb} from {loss.loss_before:.3f} to "
        f"{loss.loss_after:.3f}; an update was {ratio:.2f} times the size of plain fp32."
    )


def _facts(result: DemoResult) -> str:
    options, loss = result.options, result.finished
    data = f"MIMIC-III tables in {options.mimic}" if options.mimic else "synthetic tables in the MIMIC-III schema"
    rows = {
        "Data": data,
        "Base model": options.model,
        "Domains": ", ".join(result.names.values()),
        "Protection": options.protection,
        "Rounds x steps": f"{options.rounds} x {options.steps}",
        "Held-out loss before": f"{loss.loss_before:.4f}",
        "Held-out loss, federated": f"{loss.loss_after:.4f}",
        "Held-out loss, domains alone (mean)": f"{result.alone_mean:.4f}",
        "Adapter digest": loss.adapter_sha256[:16],
    } | _privacy(result)
    return "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())


def _privacy(result: DemoResult) -> dict[str, str]:
    """Return what was spent at each domain, and what that does not cover."""
    if not result.spent:
        return {"Differential privacy": "none"}
    spent = "; ".join(
        f"{name}: epsilon {charge.epsilon_study:.3f} at delta 1/{charge.patients} (noise multiplier "
        f"{charge.mechanism.noise_multiplier:.3f}, {charge.mechanism.sampling:.2f} of the patients a step)"
        for name, charge in result.spent.items()
    )
    return {
        "Differential privacy": f"by {next(iter(result.spent.values())).unit}, epsilon {result.options.epsilon:g} for "
        "the study at each domain",
        "Epsilon spent": spent,
        "Not covered by epsilon": "the held-out losses on this page, which are of other patients and have no noise; "
        "the numbers of patients and examples, which count as public; and how long a step took",
    }


def _layout(figure: go.Figure, *, y_title: str) -> go.Figure:
    figure.update_layout(
        template="simple_white",
        height=380,
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        yaxis_title=y_title,
        legend={"orientation": "h", "y": 1.15, "x": 0},
        font={"family": "system-ui, sans-serif", "size": 14},
    )
    return figure


def _losses(result: DemoResult) -> go.Figure:
    """Held-out loss on everybody's notes: the federated adapter round by round, beside the domains alone."""
    values = [record["heldout_loss"] for record in result.rounds] + [result.finished.loss_after]
    names = ["before", *(f"after round {number}" for number in range(1, len(values)))]
    figure = go.Figure()
    figure.add_scatter(
        x=names,
        y=values,
        name="federated adapter",
        mode="lines+markers+text",
        line={"color": _BLUE, "width": 3},
        marker={"size": 10},
        text=[f"{value:.3f}" for value in values],
        textposition="top center",
    )
    figure.add_scatter(
        x=names,
        y=[result.alone_mean] * len(names),
        name=f"domains alone after as many steps, mean: {result.alone_mean:.3f}",
        mode="lines",
        line={"color": _ORANGE, "width": 3, "dash": "dash"},
    )
    figure.update_yaxes(range=[0, 1.15 * max(values)])
    return _layout(figure, y_title="loss (nats a token)")


def _losses_by_domain(result: DemoResult) -> go.Figure:
    """Each domain's own adapter and the federated one, on the domain's own held-out notes."""
    names = list(result.alone)
    after = {result.names[email]: value for email, value in result.finished.loss_after_by_domain.items()}
    series = (
        ("its own adapter, everybody's notes", [result.alone[n].everybody for n in names], _ORANGE),
        ("its own adapter, its own notes", [result.alone[n].own for n in names], _PURPLE),
        ("federated adapter, its own notes", [after[n] for n in names], _BLUE),
    )
    figure = go.Figure()
    for label, values, colour in series:
        text = [f"{value:.2f}" for value in values]
        figure.add_bar(x=names, y=values, name=label, marker_color=colour, text=text, textposition="outside")
    highest = max(value for _, values, _ in series for value in values)
    figure.update_yaxes(range=[0, 1.15 * highest])
    figure.update_traces(textangle=0, cliponaxis=False)
    return _layout(figure, y_title="loss (nats a token)")


def _bytes(summary: dict[str, Any]) -> go.Figure:
    size = summary["bytes"]
    values = {"plain fp32": size["plain_fp32"], "up: sealed update": size["up"], "down: aggregate": size["down"]}
    figure = go.Figure()
    figure.add_bar(
        x=list(values),
        y=[value / 2**20 for value in values.values()],
        marker_color=[_GREY, _BLUE, _GREEN],
        text=[f"{value / 2**20:.2f} MiB<br>{value / size['plain_fp32']:.2f} x" for value in values.values()],
    )
    figure.update_yaxes(range=[0, 1.25 * max(values.values()) / 2**20])
    return _layout(figure, y_title="MiB a round and domain")


def _seconds(summary: dict[str, Any]) -> go.Figure:
    parts = summary["seconds"]["round"]
    names = ("train", "seal", "transfer", "confirm", "aggregate", "open")
    colours = (_BLUE, _ORANGE, _GREY, _GREY, _GREEN, _PURPLE)
    values = [parts.get(name, 0.0) for name in names]
    figure = go.Figure()
    figure.add_bar(x=list(names), y=values, marker_color=list(colours), text=[f"{value:.2f} s" for value in values])
    figure.update_yaxes(range=[0, 1.2 * max(values) + 0.01])
    return _layout(figure, y_title="seconds a round (mean)")


def _rounds(result: DemoResult) -> str:
    rows = []
    for record in result.rounds:
        weights = ", ".join(f"{escape(result.names[e])} {w:.2f}" for e, w in record["weights"].items())
        cells = (
            str(record["round"]),
            f"{record['heldout_loss']:.4f}",
            "-" if record["train_loss"] is None else f"{record['train_loss']:.4f}",
            weights,
            f"{record['bytes_up']:,}",
            f"{record['bytes_down']:,}",
            f"{record['seconds']['wall']:.1f}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join(rows)


def _decisions(result: DemoResult) -> str:
    parts = []
    for email, decision in result.decisions.items():
        checks = "".join(f"<li>{escape(sentence)}</li>" for sentence in decision.checked)
        limits = escape("; ".join(limits_in_words(decision.limits)) if decision.limits else "").capitalize()
        parts.append(
            f"<h3>{escape(result.names[email])}: {escape(decision.decision)}</h3>"
            f"<p>{escape(decision.reason)}. {limits}. Checked:</p><ul>{checks}</ul>"
        )
    return "".join(parts)
