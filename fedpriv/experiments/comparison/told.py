"""A comparison in words and tables, as its page and its Markdown both tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.audit.result import Range
from fedpriv.experiments.comparison.charts import Chart
from fedpriv.experiments.comparison.judgement import Judged
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.numbers import Spread, Written, decimals, in_percent, interval, number_of
from fedpriv.experiments.comparison.summary import Row


@dataclass(frozen=True, kw_only=True)
class Told:
    """What both tell: charts, a row for each method, what had to be reached, the paper's claims, and the manifest."""

    charts: Sequence[Chart]
    rows: Sequence[Row]
    targets: Sequence[Judged]
    claims: Sequence[Judged]
    manifest: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number, and what stands smaller below it: its range or interval."""

    text: str
    small: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A row for each method, with as many cells as ``head``."""

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[Row, Sequence[Cell]]]


def tables_of(rows: Sequence[Row]) -> list[Table]:
    """Return the tables of all methods: what comes of them, and what they cost."""
    return [
        Table(
            title="What is learnt, and what leaks",
            head=(
                "seeds",
                "held-out loss",
                "perplexity",
                "mortality AUROC",
                "leakage of an update: aggregator, store",
                "leakage of an update: another domain",
                "leakage of the sum: a domain",
            ),
            rows=[(row, _learnt(row)) for row in rows],
        ),
        Table(
            title="What it costs",
            head=(
                "bytes up a round",
                "bytes down a round",
                "CPU s, training",
                "CPU s, beside it",
                "wall s",
                "memory of a process, MB",
            ),
            rows=[(row, _costs(row)) for row in rows],
        ),
    ]


def _learnt(row: Row) -> list[Cell]:
    auroc = Cell(text="-") if row.auroc is None else Cell(text=f"{row.auroc:.2f} ± {row.auroc_se or 0:.2f}")
    return [
        Cell(text=str(row.seeds)),
        _spread(row.loss, decimals(4)),
        _spread(row.perplexity, decimals(2)),
        auroc,
        _rate(row.leakage_outside),
        _rate(row.leakage_inside),
        _opened(row),
    ]


def _costs(row: Row) -> list[Cell]:
    return [
        _spread(row.bytes_up, decimals(0)),
        _spread(row.bytes_down, decimals(0)),
        _spread(row.training_cpu_s, decimals(1)),
        _spread(row.other_cpu_s, decimals(1)),
        _spread(row.wall_s, decimals(0)),
        _spread(row.peak_mb, decimals(0)),
    ]


def _spread(found: Spread, written: Written) -> Cell:
    return Cell(text=written(found.mean), small=found.bounds(written))


def _rate(found: Range | None) -> Cell:
    written = in_percent()
    return (
        Cell(text="not measured") if found is None else Cell(text=written(found.value), small=interval(found, written))
    )


def _opened(row: Row) -> Cell:
    """Return what the sum tells; where nothing is summed there is none."""
    return Cell(text="-") if METHODS[row.method].level is None else _rate(row.leakage_opened)


def how_to_read(rows: Sequence[Row]) -> str:
    """Return what the tables hold, in a paragraph."""
    counts = sorted({row.seeds for row in rows}) or [0]
    seeds = number_of(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    below = "; one seed has no range" if 1 in counts else ""
    return (
        f"Means over {seeds}, with the range from the lowest to the highest where seeds differ{below}. Bytes are of "
        "one domain and one round (centralised: the notes themselves, once). CPU seconds and wall clock are of all "
        "parties over a whole study, on one machine; memory is the most that one process had. AUROC is of the question "
        "whether a patient dies in hospital, told from the first 48 hours, over the held-out patients of all domains "
        "(one seed, with its standard error; - where it was not asked). Leakage rates are of one step on one note, "
        "with their 95 % interval over passages. What a domain learns from the sum of three (of a local round on a "
        "note each), which all of them are to open, no protection of updates hides: noise alone bounds it, and more "
        "domains blur it; under SecAgg the researcher opens that sum, too. DP-FL's "
        "is of noise on a domain's whole update, at an epsilon of 8; what it "
        "sends by patients, lora_B alone, these attacks do not read at all."
    )


def headline(rows: Sequence[Row]) -> str:
    """Return the comparison in two sentences, as far as it was measured."""
    by = {row.method: row for row in rows}
    own, fl, he = (by.get(name) for name in ("fedpriv", "fl", "he-fl"))
    if own is None or fl is None:
        return f"{len(rows)} methods were measured; FL and fedpriv are needed to say more."
    said = [f"fedpriv sends {own.bytes_up.mean / fl.bytes_up.mean:.2f} times what plain FL sends"]
    if he is not None:
        said.append(f"{he.bytes_up.mean / own.bytes_up.mean:.0f} times less than HE-FL")
    told = decimals(4)
    said.append(f"and ends at a held-out loss of {own.loss.told(told)} where FL ends at {fl.loss.told(told)}")
    seeds = sorted({own.seeds, fl.seeds})
    sentence = ", ".join(said) + (", each with one seed." if seeds == [1] else ".")
    if own.leakage_outside is not None and fl.leakage_outside is not None:
        written = in_percent()
        sentence += (
            f" From one plain step on one note the attack reads {written(fl.leakage_outside.value)} of what tells, "
            f"above chance; from the same step under fedpriv {written(own.leakage_outside.value)}."
        )
    return sentence


def about(row: Row) -> tuple[str, str]:
    """Return a method's title, and what it is."""
    method = METHODS[row.method]
    return method.title, method.about
