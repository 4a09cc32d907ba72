"""What a comparison says: a row for each method, what must be reached, and the paper's claims beside what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from fedpriv.experiments.comparison.leakage import EPSILON, Holder, LeakageRecord
from fedpriv.experiments.comparison.methods import METHODS, MethodName, in_order
from fedpriv.experiments.comparison.record import Record
from fedpriv.experiments.target import Target
from fedpriv.study.section import Section

MOST_BYTES_OVER_FL, LEAST_HE_OVER_BYTES = 1.0, 24.0
MOST_CPU_OVER_FL = 0.05
MOST_LOSS_OVER_FL, MOST_LOSS_OVER_CENTRALISED = 0.01, 0.03
LEAST_CONTROL = 0.95
"""Telling tokens that the attack names from plain single gradients of 32 tokens; first measured as 1.00."""

OUTSIDE: Holder = "aggregator and store"
INSIDE: Holder = "one colluding domain"


class Row(Section):
    """One method: means over its seeds; None where it was not measured or has no meaning.

    Bytes are of one domain and one round; CPU seconds, wall clock and memory of all parties and a whole study;
    ``perplexity`` is the exponential of the mean loss; leakage rates are of one step on one note.
    """

    method: MethodName
    seeds: int
    loss: float
    least_loss: float
    most_loss: float
    perplexity: float
    auroc: float | None
    auroc_se: float | None
    bytes_up: float
    bytes_down: float
    training_cpu_s: float
    other_cpu_s: float
    wall_s: float
    peak_mb: float
    peak_all_mb: float
    leakage_outside: float | None
    leakage_inside: float | None


def rows_of(records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> list[Row]:
    """Return a row for each method that was run."""
    main = [record for record in records if record.case.part == "methods"]
    return [_row(method, records, leaks) for method in in_order(record.case.method for record in main)]


def _row(method: MethodName, records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> Row:
    mine = [record for record in records if record.case.method == method]
    runs = [record for record in mine if record.case.part == "methods"]
    asked = next((record.quality for record in mine if record.case.part == "mortality"), None)
    losses = [record.quality.loss for record in runs]
    return Row(
        method=method,
        seeds=len(runs),
        loss=mean(losses),
        least_loss=min(losses),
        most_loss=max(losses),
        perplexity=math.exp(mean(losses)),
        auroc=asked and asked.auroc,
        auroc_se=asked and asked.auroc_se,
        bytes_up=mean(record.bytes_up for record in runs),
        bytes_down=mean(record.bytes_down for record in runs),
        training_cpu_s=mean(record.cost.training_cpu_s for record in runs),
        other_cpu_s=mean(record.cost.other_cpu_s for record in runs),
        wall_s=mean(record.cost.wall_s for record in runs),
        peak_mb=max(record.cost.peak_bytes for record in runs) / 1e6,
        peak_all_mb=max(record.cost.peak_all_bytes for record in runs) / 1e6,
        leakage_outside=_rate(leaks, method, OUTSIDE),
        leakage_inside=_rate(leaks, method, INSIDE),
    )


def leak_of(leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder) -> LeakageRecord | None:
    """Return the attack on one step on one note; of DP-FL at the epsilon of the other figures."""
    for leak in leaks:
        case = leak.case
        same = (case.method, case.holder, case.work) == (method, holder, "one step, 1 note")
        if same and case.epsilon in (None, EPSILON):
            return leak
    return None


def _rate(leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder) -> float | None:
    leak = leak_of(leaks, method, holder)
    return leak.rate.value if leak and leak.rate else None


def targets_of(rows: Sequence[Row], leaks: Sequence[LeakageRecord]) -> list[Target]:
    """Return what must be reached, and whether it was; ``met`` is None where it was not measured."""
    by = {row.method: row for row in rows}
    fl, own, he, central = (by.get(name) for name in ("fl", "fedpriv", "he-fl", "centralised"))
    found = [_control(leaks)]
    for method in ("fedpriv", "fedpriv-hybrid"):
        found += [_at_chance(leaks, method, holder) for holder in (OUTSIDE, INSIDE)]
    found += [
        _ratio("fedpriv's bytes up over FL's", own and fl and own.bytes_up / fl.bytes_up, most=MOST_BYTES_OVER_FL),
        _ratio("HE-FL's bytes up over fedpriv's", own and he and he.bytes_up / own.bytes_up, least=LEAST_HE_OVER_BYTES),
        _share("CPU seconds that protection adds to FL", own and fl and _added(own, fl), most=MOST_CPU_OVER_FL),
        _share("fedpriv's held-out loss against FL's", own and fl and own.loss / fl.loss - 1, most=MOST_LOSS_OVER_FL),
        _share(
            "FL's held-out loss against centralised training's",
            fl and central and fl.loss / central.loss - 1,
            most=MOST_LOSS_OVER_CENTRALISED,
        ),
    ]
    return found


def _added(own: Row, fl: Row) -> float:
    """Return what a method computes beside training over what FL does, as a share of FL's whole.

    Training is the same work in both, and its noise from run to run would hide what is asked.
    """
    return (own.other_cpu_s - fl.other_cpu_s) / (fl.training_cpu_s + fl.other_cpu_s)


def _control(leaks: Sequence[LeakageRecord]) -> Target:
    leak = leak_of(leaks, "fl", OUTSIDE)
    return Target(
        what="telling tokens named from plain FL's updates, one step on one note (positive control)",
        wanted=f">= {LEAST_CONTROL:.0%}",
        measured="-" if leak is None else f"{leak.named:.0%} of {leak.trials} passages",
        met=None if leak is None else leak.named >= LEAST_CONTROL,
    )


def _at_chance(leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder) -> Target:
    leak = leak_of(leaks, method, holder)
    rate = leak.rate if leak else None
    return Target(
        what=f"leakage rate of {METHODS[method].title}, {holder}",
        wanted="an interval that holds 0",
        measured="-" if rate is None else f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})",
        met=None if rate is None else rate.low <= 0 <= rate.high,
    )


def _ratio(what: str, value: float | None, *, most: float | None = None, least: float | None = None) -> Target:
    wanted = f"<= {most:g} x" if most is not None else f">= {least:g} x"
    met = None if value is None else (most is None or value <= most) and (least is None or value >= least)
    return Target(what=what, wanted=wanted, measured="-" if value is None else f"{value:.3g} x", met=met)


def _share(what: str, value: float | None, *, most: float) -> Target:
    return Target(
        what=what,
        wanted=f"<= +{most:.0%}",
        measured="-" if value is None else f"{value:+.2%}",
        met=None if value is None else value <= most,
    )


def _worst_leak(row: Row) -> float | None:
    known = [rate for rate in (row.leakage_outside, row.leakage_inside) if rate is not None]
    return max(known) if known else None


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """One claim of the paper: of which number its method has less than which others."""

    what: str
    others: tuple[MethodName, ...]
    unit: str
    value: Callable[[Row], float | None]


_NOISE = 0.01
"""A difference of less than this part is none: it is what runs of one method differ by."""

_CLAIMS = (
    _Claim(
        what="It leaks less than FL, HE-FL and DP-FL.",
        others=("fl", "he-fl", "dp-fl"),
        unit="leakage rate, the worse of both holders",
        value=_worst_leak,
    ),
    _Claim(
        what="It communicates less than FL and HE-FL.",
        others=("fl", "he-fl"),
        unit="bytes up",
        value=lambda row: row.bytes_up,
    ),
    _Claim(
        what="It computes less than FL and HE-FL.",
        others=("fl", "he-fl"),
        unit="CPU seconds",
        value=lambda row: row.training_cpu_s + row.other_cpu_s,
    ),
    _Claim(what="It learns better than FL.", others=("fl",), unit="held-out loss", value=lambda row: row.loss),
)


def claims_of(rows: Sequence[Row]) -> list[Target]:
    """Return what the paper claims of its method (arXiv 2503.12226, abstract and figures 1 to 3), as measured here.

    Its figures have no definitions that can be run, so that only the order of methods can be held against ours.
    """
    by = {row.method: row for row in rows}
    found = []
    for claim in _CLAIMS:
        own = claim.value(by["fedpriv"]) if "fedpriv" in by else None
        known = [number for name in claim.others if name in by and (number := claim.value(by[name])) is not None]
        measured, met = "-", None
        if own is not None and len(known) == len(claim.others):
            words = zip((METHODS[name].title for name in claim.others), known, strict=True)
            measured = f"{claim.unit}: fedpriv {_number(own)}; " + ", ".join(
                f"{name} {_number(n)}" for name, n in words
            )
            met = own < min(known) - _NOISE * abs(min(known))
        wanted = f"less than {'each' if len(claim.others) > 1 else 'it'}, by over {_NOISE:.0%}"
        found.append(Target(what=claim.what, wanted=wanted, measured=measured, met=met))
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
