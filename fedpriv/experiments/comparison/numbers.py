"""Numbers as people read them, and what several seeds gave: their mean and their range."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from pydantic import Field, computed_field

from fedpriv.audit.result import Range
from fedpriv.study.section import Section

Written = Callable[[float], str]


class Spread(Section):
    """One number by seed: one or more of them."""

    by_seed: dict[int, float] = Field(min_length=1)

    @computed_field
    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return mean(self.by_seed.values())

    @computed_field
    @property
    def least(self) -> float:
        """The lowest."""
        return min(self.by_seed.values())

    @computed_field
    @property
    def most(self) -> float:
        """The highest."""
        return max(self.by_seed.values())

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.by_seed)

    @property
    def width(self) -> float:
        """How far the seeds lie apart: 0 for one, which says nothing of others."""
        return self.most - self.least

    def against(self, other: Spread, part: Callable[[float, float], float]) -> Spread | None:
        """Return what ``part`` makes of both numbers of each seed that both have; None if there is no such seed."""
        both = sorted(self.by_seed.keys() & other.by_seed.keys())
        return Spread(by_seed={seed: part(self.by_seed[seed], other.by_seed[seed]) for seed in both}) if both else None

    def told(self, written: Written) -> str:
        """Return the mean, and the range where seeds differ by what is written."""
        bounds = self.bounds(written)
        return f"{written(self.mean)} ({bounds})" if bounds else written(self.mean)

    def bounds(self, written: Written) -> str:
        """Return the range; empty where the seeds do not differ by what is written."""
        low, high = written(self.least), written(self.most)
        return "" if low == high else f"{low} to {high}"


def decimals(count: int) -> Written:
    """Return what writes numbers with so many decimals, and thousands apart; never minus zero."""
    return lambda value: _signless(f"{value:,.{count}f}")


def in_percent(count: int = 0, *, sign: str = "-") -> Written:
    """Return what writes shares in percent; ``sign`` of ``+`` writes one before positive ones, too."""
    return lambda value: _signless(f"{100 * value:{sign}.{count}f}") + "%"


def interval(found: Range, written: Written) -> str:
    """Return an interval."""
    return f"{written(found.low)} to {written(found.high)}"


def number_of(count: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _signless(written: str) -> str:
    """Take the sign off what is written as zero."""
    return written if any(digit in "123456789" for digit in written) else written.lstrip("+-")
