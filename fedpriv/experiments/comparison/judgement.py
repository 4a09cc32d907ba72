"""What a comparison comes to: what must be reached, and what the paper claims, beside what was measured.

A number that changes with the seed is judged only as far as seeds agree. A target is met if every seed meets it, and
missed if their mean does not. A claim that one method has less than another holds if their means differ by more than
the seeds of either. Else it cannot be told; nor can it with a single seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedpriv.audit.result import Range
from fedpriv.experiments.comparison.leakage import IN_ORDER, MEMBERS, ROUND, Holder, LeakageRecord, Work
from fedpriv.experiments.comparison.methods import METHODS, MethodName
from fedpriv.experiments.comparison.numbers import Spread, Written, decimals, in_percent, interval, number_of
from fedpriv.experiments.comparison.summary import INSIDE, OPENED, OUTSIDE, Row, leak_of

Verdict = Literal["met", "missed", "holds", "does not hold", "cannot be told", "not measured"]

RULE = (
    "A number that changes with the seed is judged only as far as the seeds agree. What had to be reached is met "
    "if every seed meets it, and missed if their mean does not. A claim that one method has less than another "
    "holds if their means differ by more than the seeds of either one do; where they differ by less, or where "
    "there is one seed only, it cannot be told. Bytes follow from the format and need no second seed. Leakage "
    "rates are judged by their 95 % intervals over passages: one is less than another if the intervals do not "
    "meet."
)

MOST_BYTES_OVER_FL, LEAST_HE_OVER_BYTES = 1.0, 24.0
MOST_CPU_OVER_FL = 0.05
MOST_LOSS_OVER_FL, MOST_LOSS_OVER_CENTRALISED = 0.01, 0.03
LEAST_CONTROL = 0.95
"""Telling tokens that the attack names from plain single gradients of 32 tokens; first measured as 1.00."""

LEAST_READ = 0.9
"""ROUGE-L of what it reads from them word for word; first measured as 1.00."""

LOSS_SEEDS, LEAST_SEEDS = 3, 2
"""Of which the targets about losses are; and fewer than which have no range."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One thing that must be reached, or that the paper claims, and what became of it."""

    what: str
    wanted: str
    measured: str
    verdict: Verdict


# -- what must be reached ----------------------------------------------------------------------------------------------


def targets_of(rows: Sequence[Row], leaks: Sequence[LeakageRecord]) -> list[Judged]:
    """Return what must be reached, and whether it was."""
    by = {row.method: row for row in rows}
    fl, own, he, central = (by.get(name) for name in ("fl", "fedpriv", "he-fl", "centralised"))
    sent, he_sent = _compared(own, fl, lambda row: row.bytes_up), _compared(he, own, lambda row: row.bytes_up)
    found = _controls(leaks)
    for method in ("fedpriv", "fedpriv-hybrid"):
        for holder in (OUTSIDE, INSIDE):
            found.append(_at_chance("leakage rate", leaks, method, holder))
        found.append(_at_chance("ROUGE-L above chance", leaks, method, OUTSIDE, IN_ORDER))
        opened = _at_chance("leakage rate", leaks, method, OPENED, ROUND)
        found.append(_with_cohorts(opened, leaks) if method == "fedpriv" else opened)
    found.append(_in_between(leaks))
    return [
        *found,
        _target("fedpriv's bytes up over FL's", sent, most=MOST_BYTES_OVER_FL, written=_times),
        _target("HE-FL's bytes up over fedpriv's", he_sent, least=LEAST_HE_OVER_BYTES, written=_times),
        _beside(
            _target(
                "CPU seconds that protection adds to FL",
                own and fl and _added(own, fl),
                most=MOST_CPU_OVER_FL,
                written=_signed,
                seeds=LEAST_SEEDS,
            ),
            he and fl and _added(he, fl),
        ),
        _target(
            "fedpriv's held-out loss against FL's",
            _compared(own, fl, lambda row: row.loss, less=1.0),
            most=MOST_LOSS_OVER_FL,
            written=_signed,
            seeds=LOSS_SEEDS,
        ),
        _target(
            "FL's held-out loss against centralised training's",
            _compared(fl, central, lambda row: row.loss, less=1.0),
            most=MOST_LOSS_OVER_CENTRALISED,
            written=_signed,
            seeds=LOSS_SEEDS,
        ),
    ]


def _beside(judged: Judged, he: Spread | None) -> Judged:
    """Return a judgement with HE-FL's number beside it, which is for comparison alone."""
    if he is None or judged.verdict == "not measured":
        return judged
    return replace(judged, measured=f"{judged.measured}; HE-FL {he.told(_signed)}")


def _compared(
    one: Row | None, other: Row | None, value: Callable[[Row], Spread], *, less: float = 0.0
) -> Spread | None:
    """Return the ratio of two rows' numbers, seed by seed, minus ``less``."""
    return one and other and value(one).against(value(other), lambda a, b: a / b - less)


def _added(own: Row, fl: Row) -> Spread | None:
    """Return what a method computes beside training over what FL does, as a share of FL's whole.

    Training is the same work in both, and its noise from run to run would hide what is asked.
    """
    more = own.other_cpu_s.against(fl.other_cpu_s, lambda a, b: a - b)
    whole = fl.other_cpu_s.against(fl.training_cpu_s, lambda a, b: a + b)
    return more and whole and more.against(whole, lambda a, b: a / b)


def _target(
    what: str,
    found: Spread | None,
    *,
    written: Written,
    most: float | None = None,
    least: float | None = None,
    seeds: int = 1,
) -> Judged:
    """Judge a number against a bound; ``seeds`` is how many it takes."""
    wanted = f"<= {written(most)}" if most is not None else f">= {written(least or 0.0)}"
    if seeds > 1:
        wanted += f", by each of {seeds} seeds or more"
    if found is None:
        return Judged(what=what, wanted=wanted, measured="-", verdict="not measured")
    reached = all(_within(value, most, least) for value in found.by_seed.values())
    measured = f"{found.told(written)}, {number_of(found.seeds, 'seed')}" if seeds > 1 else found.told(written)
    verdict: Verdict = "met" if reached else "cannot be told" if _within(found.mean, most, least) else "missed"
    if found.seeds < seeds:
        verdict = "cannot be told"
    return Judged(what=what, wanted=wanted, measured=measured, verdict=verdict)


def _within(value: float, most: float | None, least: float | None) -> bool:
    return (most is None or value <= most) and (least is None or value >= least)


def _controls(leaks: Sequence[LeakageRecord]) -> list[Judged]:
    tokens, text = leak_of(leaks, "fl", OUTSIDE), leak_of(leaks, "fl", OUTSIDE, IN_ORDER)
    four = leak_of(leaks, "fl", OUTSIDE, "one step, 4 notes")
    of = "from plain FL's updates, one step on"
    return [
        _control(f"telling tokens named {of} one note (positive control)", tokens, LEAST_CONTROL),
        _control(f"telling tokens named {of} four notes (positive control)", four, LEAST_CONTROL),
        _control(f"the note read word for word, ROUGE-L, {of} it (positive control)", text, LEAST_READ),
    ]


def _control(what: str, leak: LeakageRecord | None, least: float) -> Judged:
    return Judged(
        what=what,
        wanted=f">= {least:.0%}",
        measured="-" if leak is None else f"{leak.named:.0%} of {leak.trials} passages",
        verdict="not measured" if leak is None else "met" if leak.named >= least else "missed",
    )


def _at_chance(
    of: str, leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder, work: Work = "one step, 1 note"
) -> Judged:
    leak = leak_of(leaks, method, holder, work)
    rate = leak.rate if leak else None
    return Judged(
        what=f"{of} of {METHODS[method].title}, {holder}",
        wanted="an interval that holds 0",
        measured="-" if rate is None else f"{_fine(rate.value)} ({interval(rate, _fine)})",
        verdict="not measured" if rate is None else "met" if rate.low <= 0 <= rate.high else "missed",
    )


def _with_cohorts(judged: Judged, leaks: Sequence[LeakageRecord]) -> Judged:
    """Return a judgement of the sum of three with that of the most domains beside it."""
    sums = [
        leak for leak in leaks if (leak.case.method, leak.case.holder, leak.case.work) == ("fedpriv", OPENED, ROUND)
    ]
    most = max(sums, key=lambda leak: leak.case.members, default=None)
    if most is None or most.rate is None or most.case.members == MEMBERS or judged.verdict == "not measured":
        return judged
    more = f"of {most.case.members} domains {_fine(most.rate.value)} ({interval(most.rate, _fine)})"
    return replace(judged, measured=f"{judged.measured}; {more}")


def _in_between(leaks: Sequence[LeakageRecord]) -> Judged:
    """Judge DP-FL's curve: never above plain FL, and above chance where the noise is small enough."""
    single = [leak for leak in leaks if (leak.case.holder, leak.case.work) == (OUTSIDE, "one step, 1 note")]
    noisy = sorted((leak for leak in single if leak.case.epsilon is not None), key=lambda leak: leak.case.epsilon or 0)
    rates = [(leak.case.epsilon or 0.0, leak.rate) for leak in noisy if leak.rate is not None]
    fl = leak_of(leaks, "fl", OUTSIDE)
    what, wanted = "DP-FL's leakage rate over epsilon", "between fedpriv's and plain FL's"
    if len(rates) < 2 or fl is None or fl.rate is None:
        return Judged(what=what, wanted=wanted, measured="-", verdict="not measured")
    seen = next((epsilon for epsilon, rate in rates if rate.low > 0), None)
    last, highest = rates[-1]
    told = f"above chance from epsilon {_power(seen)} on" if seen else "at chance throughout"
    under = all(rate.value <= fl.rate.value for _, rate in rates)
    return Judged(
        what=what,
        wanted=wanted,
        measured=f"{told}; {_fine(highest.value)} at {_power(last)}, FL {_fine(fl.rate.value)}",
        verdict="met" if under and seen else "missed",
    )


_fine, _signed = in_percent(1), in_percent(2, sign="+")


def _power(value: float) -> str:
    return f"{value:g}".replace("e+0", "e")


def _times(value: float) -> str:
    return f"{value:.3g} x"


# -- what the paper claims ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """One claim of the paper: of which number its method has less than which others."""

    what: str
    others: tuple[MethodName, ...]
    unit: str
    value: Callable[[Row], Spread | Range | None]
    written: Written
    seeds: int = LEAST_SEEDS


def _worst_leak(row: Row) -> Range | None:
    known = [rate for rate in (row.leakage_outside, row.leakage_inside) if rate is not None]
    return max(known, key=lambda rate: rate.value) if known else None


_CLAIMS = (
    _Claim(
        what="It leaks less than FL, HE-FL and DP-FL.",
        others=("fl", "he-fl", "dp-fl"),
        unit="leakage rate of a single update, the worse of both holders",
        value=_worst_leak,
        written=_fine,
    ),
    _Claim(
        what="It communicates less than FL and HE-FL.",
        others=("fl", "he-fl"),
        unit="bytes up",
        value=lambda row: row.bytes_up,
        written=decimals(0),
        seeds=1,
    ),
    _Claim(
        what="It computes less than FL and HE-FL: beside training.",
        others=("fl", "he-fl"),
        unit="CPU seconds",
        value=lambda row: row.other_cpu_s,
        written=decimals(1),
    ),
    _Claim(
        what="It computes less than FL and HE-FL: in training.",
        others=("fl", "he-fl"),
        unit="CPU seconds",
        value=lambda row: row.training_cpu_s,
        written=decimals(1),
    ),
    _Claim(
        what="It learns better than FL.",
        others=("fl",),
        unit="held-out loss",
        value=lambda row: row.loss,
        written=decimals(4),
    ),
)


def claims_of(rows: Sequence[Row]) -> list[Judged]:
    """Return what the paper claims of its method (arXiv 2503.12226, abstract and figures 1 to 3), as measured here.

    Its figures have no definitions that can be run, so that only the order of methods can be held against ours.
    """
    return [_claim(claim, {row.method: row for row in rows}) for claim in _CLAIMS]


def _claim(claim: _Claim, by: dict[MethodName, Row]) -> Judged:
    wanted = f"less than {'each' if len(claim.others) > 1 else 'it'}"
    names: tuple[MethodName, ...] = ("fedpriv", *claim.others)
    known: dict[MethodName, Spread | Range] = {
        name: value for name in names if name in by and (value := claim.value(by[name]))
    }
    if len(known) <= len(claim.others):
        return Judged(what=claim.what, wanted=wanted, measured="-", verdict="not measured")
    told = "; ".join(f"{METHODS[name].title} {_told(value, claim.written)}" for name, value in known.items())
    own = known.pop("fedpriv")
    verdicts = {_less(own, value, claim.seeds) for value in known.values()}
    order: tuple[Verdict, ...] = ("does not hold", "cannot be told", "holds")
    verdict: Verdict = next(each for each in order if each in verdicts)
    return Judged(what=claim.what, wanted=wanted, measured=f"{claim.unit}: {told}", verdict=verdict)


def _told(value: Spread | Range, written: Written) -> str:
    return value.told(written) if isinstance(value, Spread) else f"{written(value.value)} ({interval(value, written)})"


def _less(own: Spread | Range, other: Spread | Range, seeds: int) -> Verdict:
    """Return whether one number is less than another, by more than chance moves them."""
    if isinstance(own, Range) and isinstance(other, Range):
        return "holds" if own.high < other.low else "does not hold" if own.low > other.high else "cannot be told"
    if not (isinstance(own, Spread) and isinstance(other, Spread)) or min(own.seeds, other.seeds) < seeds:
        return "cannot be told"
    noise = max(own.width, other.width)
    less = other.mean - own.mean
    return "holds" if less > noise else "does not hold" if -less > noise else "cannot be told"
