"""The figures of a comparison, from its records: leakage, communication, computation, quality, and the sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from fedpriv.experiments.comparison.cases import Part
from fedpriv.experiments.comparison.charts import Chart, Level, Panel, Series
from fedpriv.experiments.comparison.leakage import EPSILON, IN_ORDER, MEMBERS, ROUND, Holder, LeakageRecord, Work
from fedpriv.experiments.comparison.methods import METHODS, MethodName, in_order
from fedpriv.experiments.comparison.numbers import Spread, Written, decimals, in_percent
from fedpriv.experiments.comparison.record import Record
from fedpriv.experiments.comparison.summary import spread_of

_HOLDERS: tuple[Holder, ...] = get_args(Holder)
_COLOURS: dict[MethodName, int] = {"fl": 4, "he-fl": 3, "dp-fl": 5, "fedpriv": 2, "fedpriv-hybrid": 6}
"""The same in every panel that tells methods by colour."""

_NEAR = 0.05
"""Losses so near to FL's are shown again by themselves, where others are so far off that these would fall together."""


def charts_of(records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> list[Chart]:
    """Return the charts for which something was measured."""
    charts = [leakage_chart(leaks), communication_chart(records), computation_chart(records), quality_chart(records)]
    return [chart for chart in charts if chart.panels]


# -- leakage -----------------------------------------------------------------------------------------------------------


def leakage_chart(leaks: Sequence[LeakageRecord]) -> Chart:
    """Figure 1: what an attack reads out of single updates."""
    single = [leak for leak in leaks if leak.case.work == "one step, 1 note"]
    first = [leak for leak in single if leak.case.epsilon in (None, EPSILON)]
    noisy = [leak for leak in single if leak.case.epsilon is not None and leak.case.holder == _HOLDERS[0]]
    noisy.sort(key=lambda leak: leak.case.epsilon or 0)
    panels = [
        *_by_holder(first),
        *_over_epsilon(noisy, first),
        *_by_work(leaks),
        *_in_order(leaks),
        *_opened(leaks),
        *_over_cohorts(leaks),
    ]
    return Chart(name="leakage", title="Data leakage, by attack", panels=panels)


def _by_holder(first: Sequence[LeakageRecord]) -> list[Panel]:
    methods = in_order(leak.case.method for leak in first)
    if not methods:
        return []
    series = []
    for holder in _HOLDERS[:2]:
        of = {leak.case.method: leak for leak in first if leak.case.holder == holder}
        series.append(_rates(holder, [of.get(method) for method in methods]))
    return [
        Panel(
            title="One step on one note, the attacker's best case",
            kind="bars",
            places=[METHODS[method].title for method in methods],
            series=series,
            value_title="telling tokens named, above chance",
            share=True,
        )
    ]


def _over_epsilon(noisy: Sequence[LeakageRecord], first: Sequence[LeakageRecord]) -> list[Panel]:
    if len(noisy) < 2:
        return []
    outside = {leak.case.method: leak for leak in first if leak.case.holder == _HOLDERS[0]}
    levels = [
        Level(name=METHODS[method].title, value=leak.rate.value, colour=_COLOURS[method])
        for method in ("fl", "fedpriv")
        if (leak := outside.get(method)) and leak.rate is not None
    ]
    silent = [f"{leak.case.epsilon:,g}" for leak in noisy if leak.rate is None]
    return [
        Panel(
            title="DP-FL, noise on a domain's update",
            kind="lines",
            places=[leak.case.epsilon or 0.0 for leak in noisy],
            series=[_rates(METHODS["dp-fl"].title, noisy, colour=_COLOURS["dp-fl"])],
            place_title="epsilon of the study" + (f" (at {', '.join(silent)}: not measured)" if silent else ""),
            value_title="leakage rate",
            log_places=True,
            share=True,
            levels=levels,
        )
    ]


def _by_work(leaks: Sequence[LeakageRecord]) -> list[Panel]:
    outside = [leak for leak in leaks if leak.case.epsilon is None and leak.case.holder == _HOLDERS[0]]
    works = [leak for leak in outside if leak.case.work != IN_ORDER]
    by_work = sorted({leak.case.work for leak in works}, key=get_args(Work).index)
    if len(by_work) < 2:
        return []
    shown: list[MethodName] = ["fl", "fedpriv", "fedpriv-hybrid"]
    found = {(leak.case.method, leak.case.work): leak for leak in works}
    return [
        Panel(
            title="More notes, more steps, to the aggregator",
            kind="bars",
            places=by_work,
            series=[
                _rates(METHODS[method].title, [found.get((method, work)) for work in by_work], colour=_COLOURS[method])
                for method in shown
                if any((method, work) in found for work in by_work)
            ],
            value_title="leakage rate",
            share=True,
        )
    ]


def _in_order(leaks: Sequence[LeakageRecord]) -> list[Panel]:
    of = {leak.case.method: leak for leak in leaks if leak.case.work == IN_ORDER and leak.case.holder == _HOLDERS[0]}
    methods = in_order(leak.case.method for leak in of.values())
    if not methods:
        return []
    series = [_rates(_HOLDERS[0], [of[method] for method in methods])]
    return [
        Panel(
            title="The note itself, word for word, from one step on it",
            kind="bars",
            places=[METHODS[method].title for method in methods],
            series=series,
            value_title="ROUGE-L above chance",
            share=True,
        )
    ]


def _opened(leaks: Sequence[LeakageRecord]) -> list[Panel]:
    sums = [leak for leak in leaks if (leak.case.holder, leak.case.work) == (_HOLDERS[2], ROUND)]
    of = {leak.case.method: leak for leak in sums if leak.case.members == MEMBERS}
    methods = in_order(leak.case.method for leak in of.values())
    if not methods:
        return []
    return [
        Panel(
            title="The opened sum of three, which each domain gets",
            kind="bars",
            places=[METHODS[method].title for method in methods],
            series=[_rates("one domain, of a local round on a note each", [of[method] for method in methods])],
            value_title="leakage rate",
            share=True,
        )
    ]


def _over_cohorts(leaks: Sequence[LeakageRecord]) -> list[Panel]:
    sums = [leak for leak in leaks if (leak.case.holder, leak.case.method) == (_HOLDERS[2], "fedpriv")]
    cohorts = sorted((leak for leak in sums if leak.case.work == ROUND), key=lambda leak: leak.case.members)
    if len(cohorts) < 2:
        return []
    shown = [_rates("a note in each update", cohorts, colour=_COLOURS["fedpriv"])]
    more = next((leak for leak in sums if leak.case.work == "local round, 4 notes"), None)
    if more is not None:
        found = [more if leak.case.members == more.case.members else None for leak in cohorts]
        shown.append(_rates("four notes in each", found, colour=_COLOURS["dp-fl"]))
    return [
        Panel(
            title="The opened sum over domains, to one of them",
            kind="lines",
            places=[leak.case.members for leak in cohorts],
            series=shown,
            place_title="domains in the sum",
            value_title="leakage rate",
            share=True,
        )
    ]


def _rates(name: str, leaks: Sequence[LeakageRecord | None], *, colour: int | None = None) -> Series:
    rates = [None if leak is None else leak.rate for leak in leaks]
    written = in_percent()
    return Series(
        name=name,
        values=[rate and rate.value for rate in rates],
        low=[rate and rate.low for rate in rates],
        high=[rate and rate.high for rate in rates],
        words=["not measured" if rate is None else written(rate.value) for rate in rates],
        colour=colour,
    )


# -- communication and computation -------------------------------------------------------------------------------------


def communication_chart(records: Sequence[Record]) -> Chart:
    """Figure 2: what a domain sends."""
    panels = []
    sizes = _by_method(records, lambda record: record.bytes_up / 1e6)
    if sizes:
        plain = sizes.get("fl")
        words = [
            ("nothing" if not size.mean else f"{size.mean:.3g} MB")
            + (f", {size.mean / plain.mean:.2f} x FL" if plain and METHODS[method].level and method != "fl" else "")
            for method, size in sizes.items()
        ]
        panels.append(
            Panel(
                title="A domain in one round (centralised: its notes, once)",
                kind="bars",
                places=[METHODS[method].title for method in sizes],
                series=[Series(name="sent", values=[size.mean or None for size in sizes.values()], words=words)],
                value_title="MB sent (logarithmic)",
                log_values=True,
            )
        )
    sent = "MB sent in a round"
    panels += _sweep(records, "bits", _bits, _sent, titles=("Over bits", "bits of a value", sent))
    panels += _sweep(
        records,
        "sealed-share",
        lambda r: r.case.sealed_share,
        _sent,
        titles=("Over how much is sealed", "share of tensors sealed, the rest masked", sent),
    )
    return Chart(name="communication", title="Communication", panels=panels)


def computation_chart(records: Sequence[Record]) -> Chart:
    """Figure 3: what all parties compute."""
    panels = []
    training = _by_method(records, lambda record: record.cost.training_cpu_s)
    other = _by_method(records, lambda record: record.cost.other_cpu_s)
    whole = _by_method(records, lambda record: record.cost.cpu_s)
    if whole:
        places = [METHODS[method].title for method in whole]
        several = _several(whole)
        panels.append(
            Panel(
                title="All parties, a whole study" + (" (means over seeds)" if several else ""),
                kind="bars",
                places=places,
                series=[
                    Series(name="training and evaluating", values=[found.mean for found in training.values()]),
                    Series(
                        name="protection, protocol, store", values=[found.mean for found in other.values()], colour=5
                    ),
                ],
                ends=[f"{found.mean:,.0f} s" for found in whole.values()],
                value_title="CPU seconds",
                stacked=True,
            )
        )
        beside = _spread_series("beside training", list(other.values()), decimals(1), unit=" s", colour=5)
        panels.append(
            Panel(
                title="Of that, beside training" + (" (means and ranges over seeds)" if several else ""),
                kind="bars",
                places=places,
                series=[beside],
                value_title="CPU seconds",
            )
        )
    panels += _sweep(
        records,
        "domains",
        lambda r: float(r.case.domains),
        lambda r: r.cost.other_cpu_s / r.rounds,
        titles=("Beside training in a round, over domains", "domains", "CPU seconds of all parties"),
    )
    return Chart(name="computation", title="Computation", panels=panels)


# -- quality -----------------------------------------------------------------------------------------------------------


def quality_chart(records: Sequence[Record]) -> Chart:
    """What was learnt, seed by seed."""
    losses, loss = _by_method(records, _loss), "held-out loss"
    panels = []
    if losses:
        means = " (with the means over seeds)" if _several(losses) else ""
        panels.append(_losses(f"After the last round{means}", losses, losses))
        near = _near_to_fl(losses)
        if 1 < len(near) < len(losses):
            panels.append(_losses(f"Closer, those within {_NEAR:.0%} of FL", near, losses))
    panels += _sweep(
        records, "epsilon", lambda r: r.case.epsilon, _loss, titles=("Over epsilon", "epsilon", loss), log=True
    )
    panels += _sweep(records, "alpha", lambda r: r.case.alpha, _loss, titles=("Over alpha", "alpha", loss))
    panels += _sweep(records, "bits", _bits, _loss, titles=("Over bits", "bits of a value", loss))
    return Chart(name="quality", title="Quality", panels=panels)


def _near_to_fl(losses: dict[MethodName, Spread]) -> dict[MethodName, Spread]:
    middle = losses["fl"].mean if "fl" in losses else None
    if middle is None:
        return {}
    return {method: found for method, found in losses.items() if abs(found.mean / middle - 1) <= _NEAR}


def _losses(title: str, shown: dict[MethodName, Spread], every: dict[MethodName, Spread]) -> Panel:
    seeds = sorted({seed for found in shown.values() for seed in found.by_seed})
    return Panel(
        title=title,
        kind="dots",
        places=[METHODS[method].title for method in shown],
        series=[
            Series(name=f"seed {seed}", values=[found.by_seed.get(seed) for found in shown.values()]) for seed in seeds
        ],
        ends=[decimals(4)(found.mean) for found in shown.values()],
        value_title="held-out loss (nats a token)",
        around=every["fl"].mean if "fl" in every else None,
    )


# -- the like of several -----------------------------------------------------------------------------------------------


def _bits(record: Record) -> float:
    return record.case.bits


def _loss(record: Record) -> float:
    return record.quality.loss


def _sent(record: Record) -> float:
    return record.bytes_up / 1e6


def _by_method(records: Sequence[Record], value: Callable[[Record], float]) -> dict[MethodName, Spread]:
    """Return what the seeds of each method gave that was run."""
    methods = in_order(record.case.method for record in records if record.case.part == "methods")
    return {method: spread_of(records, method, value) for method in methods}


def _several(found: dict[MethodName, Spread]) -> bool:
    return any(spread.seeds > 1 for spread in found.values())


def _spread_series(name: str, found: Sequence[Spread], written: Written, *, unit: str, colour: int) -> Series:
    """Return means, with the range over seeds where there are several."""
    several = [spread.seeds > 1 for spread in found]
    return Series(
        name=name,
        values=[spread.mean for spread in found],
        low=[spread.least if more else None for spread, more in zip(found, several, strict=True)],
        high=[spread.most if more else None for spread, more in zip(found, several, strict=True)],
        words=[f"{written(spread.mean)}{unit}" for spread in found],
        colour=colour,
    )


def _sweep(
    records: Sequence[Record],
    part: Part,
    place: Callable[[Record], float | None],
    value: Callable[[Record], float],
    *,
    titles: tuple[str, str, str],
    log: bool = False,
) -> list[Panel]:
    """Return a panel of a sweep, or none where it was not run; ``titles``: its own, the place's, the value's."""
    title, place_title, value_title = titles
    swept = [record for record in records if record.case.part == part]
    places = sorted({at for record in swept if (at := place(record)) is not None})
    if len(places) < 2:
        return []
    found = {(record.case.method, place(record)): value(record) for record in swept}
    methods = in_order(record.case.method for record in swept)
    said = [METHODS[methods[0]].title] if len(methods) == 1 else []
    if value is _loss:  # not that of the panels above where fewer rounds are swept
        rounds = swept[0].rounds
        said.append(f"after {rounds} round{'s' if rounds > 1 else ''}")
    return [
        Panel(
            title=f"{title} ({', '.join(said)})" if said else title,
            kind="lines",
            places=places,
            series=[
                Series(
                    name=METHODS[method].title,
                    values=[found.get((method, at)) for at in places],
                    colour=_COLOURS.get(method),
                )
                for method in methods
            ],
            place_title=place_title,
            value_title=value_title,
            log_places=log,
        )
    ]
