"""The figures of a comparison, from its records: leakage, communication, computation, quality, and the sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import get_args

from fedpriv.experiments.comparison.cases import Part
from fedpriv.experiments.comparison.charts import Chart, Panel, Series
from fedpriv.experiments.comparison.leakage import EPSILON, Holder, LeakageRecord, Work
from fedpriv.experiments.comparison.methods import METHODS, MethodName, in_order
from fedpriv.experiments.comparison.record import Record

_HOLDERS: tuple[Holder, ...] = ("aggregator and store", "one colluding domain")


def charts_of(records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> list[Chart]:
    """Return the charts for which something was measured."""
    charts = [leakage_chart(leaks), communication_chart(records), computation_chart(records), quality_chart(records)]
    return [chart for chart in charts if chart.panels]


def leakage_chart(leaks: Sequence[LeakageRecord]) -> Chart:
    """Figure 1: what an attack reads out of single updates."""
    first = [leak for leak in leaks if leak.case.work == "one step, 1 note" and leak.case.epsilon in (None, EPSILON)]
    methods = in_order(leak.case.method for leak in first)
    panels: list[Panel] = []
    if methods:
        series = []
        for holder in _HOLDERS:
            of = {leak.case.method: leak for leak in first if leak.case.holder == holder}
            series.append(_rates(holder, [of.get(method) for method in methods]))
        panels.append(
            Panel(
                title="one step on one note, the attacker's best case",
                kind="bars",
                places=[METHODS[method].title for method in methods],
                series=series,
                value_title="leakage rate (share of telling tokens named, above chance)",
            )
        )
    noisy = sorted((leak for leak in leaks if leak.case.epsilon is not None), key=lambda leak: leak.case.epsilon or 0)
    if noisy:
        outside = {leak.case.method: leak for leak in first if leak.case.holder == _HOLDERS[0]}
        levels = {
            METHODS[method].title: leak.rate.value
            for method in ("fl", "fedpriv")
            if (leak := outside.get(method)) and leak.rate is not None
        }
        panels.append(
            Panel(
                title="DP-FL (noise on a domain's update)",
                kind="lines",
                places=[leak.case.epsilon or 0.0 for leak in noisy],
                series=[_rates("DP-FL", noisy)],
                place_title="epsilon of the study",
                value_title="leakage rate",
                log_places=True,
                levels=levels,
            )
        )
    works = [leak for leak in leaks if leak.case.epsilon is None and leak.case.holder == _HOLDERS[0]]
    by_work = sorted({leak.case.work for leak in works}, key=get_args(Work).index)
    if len(by_work) > 1:
        shown: list[MethodName] = ["fl", "fedpriv", "fedpriv-hybrid"]
        found = {(leak.case.method, leak.case.work): leak for leak in works}
        panels.append(
            Panel(
                title="more notes, more steps (the aggregator)",
                kind="bars",
                places=by_work,
                series=[
                    _rates(METHODS[method].title, [found.get((method, work)) for work in by_work])
                    for method in shown
                    if any((method, work) in found for work in by_work)
                ],
                value_title="leakage rate",
            )
        )
    return Chart(name="leakage", title="Data leakage, by attack", panels=panels)


def communication_chart(records: Sequence[Record]) -> Chart:
    """Figure 2: what a domain sends."""
    panels = []
    sizes = _by_method(records, lambda record: record.bytes_up / 1e6)
    if sizes:
        plain = sizes.get("fl")
        words = [
            f"{size:.3g} MB" + (f" ({size / plain:.2f} x FL)" if plain and METHODS[method].level else "")
            for method, size in sizes.items()
        ]
        panels.append(
            Panel(
                title="a domain in one round; centralised: its notes, once",
                kind="bars",
                places=[METHODS[method].title for method in sizes],
                series=[Series(name="sent", values=[size or None for size in sizes.values()], words=words)],
                value_title="megabytes sent (logarithmic)",
                log_values=True,
            )
        )
    panels += _sweep(records, "bits", _bits, lambda r: r.bytes_up / 1e6, titles=("bits of a value", "MB sent"))
    panels += _sweep(
        records,
        "sealed-share",
        lambda r: r.case.sealed_share,
        lambda r: r.bytes_up / 1e6,
        titles=("share of the tensors that is sealed, the rest masked", "MB sent"),
    )
    return Chart(name="communication", title="Communication", panels=panels)


def computation_chart(records: Sequence[Record]) -> Chart:
    """Figure 3: what all parties compute."""
    panels = []
    training = _by_method(records, lambda record: record.cost.training_cpu_s)
    other = _by_method(records, lambda record: record.cost.other_cpu_s)
    if training:
        panels.append(
            Panel(
                title="all parties, a whole study",
                kind="bars",
                places=[METHODS[method].title for method in training],
                series=[
                    Series(name="training and evaluating", values=list(training.values())),
                    Series(
                        name="protection, protocol, store",
                        values=list(other.values()),
                        words=[f"{seconds:.1f} s beside training" for seconds in other.values()],
                    ),
                ],
                value_title="CPU seconds",
                stacked=True,
            )
        )
    panels += _sweep(
        records,
        "domains",
        lambda r: float(r.case.domains),
        lambda r: r.cost.other_cpu_s / r.rounds,
        titles=("domains", "CPU seconds a round beside training, all parties"),
    )
    return Chart(name="computation", title="Computation", panels=panels)


def quality_chart(records: Sequence[Record]) -> Chart:
    """What was learnt, seed by seed."""
    main = [record for record in records if record.case.part == "methods"]
    methods = in_order(record.case.method for record in main)
    seeds = sorted({record.case.seed for record in main})
    panels = []
    if methods:
        found = {(record.case.method, record.case.seed): record.quality.loss for record in main}
        panels.append(
            Panel(
                title="after the last round",
                kind="dots",
                places=[METHODS[method].title for method in methods],
                series=[
                    Series(name=f"seed {seed}", values=[found.get((method, seed)) for method in methods])
                    for seed in seeds
                ],
                value_title="held-out loss of all domains (nats a token)",
            )
        )
    loss = "held-out loss"
    panels += _sweep(records, "epsilon", lambda r: r.case.epsilon, _loss, titles=("epsilon", loss), log=True)
    panels += _sweep(records, "alpha", lambda r: r.case.alpha, _loss, titles=("alpha", loss))
    panels += _sweep(records, "bits", _bits, _loss, titles=("bits", loss))
    return Chart(name="quality", title="Quality", panels=panels)


def _rates(name: str, leaks: Sequence[LeakageRecord | None]) -> Series:
    rates = [None if leak is None else leak.rate for leak in leaks]
    return Series(
        name=name,
        values=[rate and rate.value for rate in rates],
        low=[rate and rate.low for rate in rates],
        high=[rate and rate.high for rate in rates],
        words=[
            "" if leak is None else "not measured" if leak.rate is None else f"{leak.rate.value:.0%}" for leak in leaks
        ],
    )


def _bits(record: Record) -> float:
    return record.case.bits


def _loss(record: Record) -> float:
    return record.quality.loss


def _by_method(records: Sequence[Record], value: Callable[[Record], float]) -> dict[MethodName, float]:
    """Return the mean over seeds of each method that was run."""
    main = [record for record in records if record.case.part == "methods"]
    methods = in_order(record.case.method for record in main)
    return {method: mean(value(record) for record in main if record.case.method == method) for method in methods}


def _sweep(
    records: Sequence[Record],
    part: Part,
    place: Callable[[Record], float | None],
    value: Callable[[Record], float],
    *,
    titles: tuple[str, str],
    log: bool = False,
) -> list[Panel]:
    """Return a panel of a sweep, or none where it was not run; ``titles`` are of the place and of the value."""
    place_title, value_title = titles
    swept = [record for record in records if record.case.part == part]
    places = sorted({at for record in swept if (at := place(record)) is not None})
    if len(places) < 2:
        return []
    found = {(record.case.method, place(record)): value(record) for record in swept}
    methods = in_order(record.case.method for record in swept)
    return [
        Panel(
            title=f"over {place_title.split(',', maxsplit=1)[0]}",
            kind="lines",
            places=places,
            series=[
                Series(name=METHODS[method].title, values=[found.get((method, at)) for at in places])
                for method in methods
            ],
            place_title=place_title,
            value_title=value_title,
            log_places=log,
        )
    ]
