"""Charts as data: panels of bars, dots or lines. :mod:`.printed` and :mod:`.web` draw them alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

# Okabe and Ito's palette: told apart with colour-blind eyes; bars also carry their numbers, lines their marks.
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#E69F00", "#767676")
QUIET = "#767676"
"""Of what is neither text nor data: it can be seen on white and on black."""

MARKS = ("o", "s", "^", "D", "v", "P", "X")

_SHORT = 1e4
_LEAST = 0.03
"""An axis that does not begin at zero shows so much on both sides of its middle, or more."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One colour of a panel: a value for each place, None where there is none.

    ``low`` and ``high`` bound an interval; ``words`` stand at the end of each row in place of its number; ``colour``
    is a place in the palette, by default the series' own.
    """

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    words: Sequence[str] = ()
    colour: int | None = None

    def error(self, place: int) -> tuple[float, float]:
        """Return how far the bounds are from the value, below and above; nothing where something is missing."""
        if not self.low or not self.high:
            return 0.0, 0.0
        value, low, high = self.values[place], self.low[place], self.high[place]
        return (0.0, 0.0) if value is None or low is None or high is None else (value - low, high - value)


@dataclass(frozen=True, kw_only=True)
class Level:
    """A line across, for comparison."""

    name: str
    value: float
    colour: int


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    kind : str
        ``bars``: one group for each of ``places``, lying; with ``stacked``, a group is one bar of parts. ``lines``:
        over the numbers in ``places``. ``dots``: like bars, but each value a dot, for runs that repeat one another.
    ends : sequence of str
        Words at the end of each place's row, where they are not those of single series.
    log_places, log_values : bool
        Logarithmic axes.
    share : bool
        Whether values are shares, told in percent.
    around : float or None
        The middle of what an axis that does not begin at zero shows at least; by default that of its values.
    levels : sequence of Level
        Lines across for comparison (``lines`` only).
    """

    title: str
    kind: Literal["bars", "lines", "dots"]
    places: Sequence[str] | Sequence[float]
    series: Sequence[Series]
    ends: Sequence[str] = ()
    place_title: str = ""
    value_title: str = ""
    stacked: bool = False
    log_places: bool = False
    log_values: bool = False
    share: bool = False
    around: float | None = None
    levels: Sequence[Level] = field(default_factory=tuple)

    @property
    def count(self) -> int:
        """How many rows a place has."""
        return 1 if self.stacked else len(self.series)

    @property
    def height(self) -> float:
        """How much of the room between two places one row takes."""
        return 0.8 / self.count

    @property
    def wide(self) -> bool:
        """Whether it is for a row of its own."""
        return self.kind != "lines" and len(self.places) > 4

    def rows(self, number: int) -> list[float]:
        """Return where the rows of a series are, counted in places from the top."""
        shift = 0.0 if self.count == 1 else (number - (self.count - 1) / 2) * self.height
        return [place + shift for place in range(len(self.places))]

    def told(self) -> Iterator[tuple[float, str]]:
        """Return where words stand at the ends of rows, and which."""
        if self.ends:
            yield from zip(map(float, range(len(self.places))), self.ends, strict=True)
            return
        for number, series in enumerate(self.series):
            words = series.words or ["not measured" if v is None else f"{v:.3g}" for v in series.values]
            yield from zip(self.rows(number), words, strict=True)

    def labels(self) -> list[str]:
        """Return the places in words; large powers of ten as such, so that they stand beside each other."""
        return [place if isinstance(place, str) else _short(place) for place in self.places]

    def colour(self, number: int) -> str:
        """Return the colour of a series."""
        own = self.series[number].colour
        return COLOURS[(number if own is None else own) % len(COLOURS)]

    def level_colour(self, number: int) -> str:
        """Return the colour of a line across."""
        return COLOURS[self.levels[number].colour]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure: its file's name, what it shows in a few words, and its panels."""

    name: str
    title: str
    panels: Sequence[Panel]

    def lines(self) -> list[list[Panel]]:
        """Return the panels in lines: wide ones by themselves, others that follow one another in pairs."""
        groups = groupby(enumerate(self.panels), lambda item: item[0] if item[1].wide else -1)
        found = [[panel for _, panel in group] for _, group in groups]
        return [group[first : first + 2] for group in found for first in range(0, len(group), 2)]


def value_range(panel: Panel) -> tuple[float, float]:
    """Return what a linear axis of values shows that need not begin at zero.

    Everything with some room, and at least 3 % on both sides of the middle: else differences of nothing look large.
    """
    known = [value for series in panel.series for value in series.values if value is not None]
    bounds = [bound for series in panel.series for bound in (*series.low, *series.high) if bound is not None]
    every = [*known, *bounds, *(level.value for level in panel.levels)]
    low, high = min(every, default=0.0), max(every, default=1.0)
    middle = (low + high) / 2 if panel.around is None else panel.around
    low, high = min(low, middle - _LEAST * abs(middle)), max(high, middle + _LEAST * abs(middle))
    spare = 0.06 * ((high - low) or 1.0)
    return low - spare, high + spare


def _short(place: float) -> str:
    digits = f"{place:.0f}"
    return f"1e{len(digits) - 1}" if place >= _SHORT and digits.strip("0") == "1" else f"{place:,g}"
