"""The rows of a comparison's tables: one for each method, what several seeds gave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fedpriv.audit.result import Range
from fedpriv.experiments.comparison.leakage import EPSILON, MEMBERS, ROUND, Holder, LeakageRecord, Work
from fedpriv.experiments.comparison.methods import MethodName, in_order
from fedpriv.experiments.comparison.numbers import Spread
from fedpriv.experiments.comparison.record import Record
from fedpriv.study.section import Section

OUTSIDE: Holder = "aggregator and store"
INSIDE: Holder = "one colluding domain"
OPENED: Holder = "sum opened by one domain"


class Row(Section):
    """One method; None where it was not measured or has no meaning.

    Bytes are of one domain and one round; CPU seconds, wall clock and memory of all parties and a whole study;
    ``perplexity`` is the exponential of the loss; leakage rates are of one step on one note, those of the opened sum of
    a local round on a note at each domain, with their 95 % interval over passages.
    """

    method: MethodName
    loss: Spread
    perplexity: Spread
    auroc: float | None
    auroc_se: float | None
    bytes_up: Spread
    bytes_down: Spread
    training_cpu_s: Spread
    other_cpu_s: Spread
    wall_s: Spread
    peak_mb: Spread
    peak_all_mb: Spread
    leakage_outside: Range | None
    leakage_inside: Range | None
    leakage_opened: Range | None

    @property
    def seeds(self) -> int:
        """How often it was run."""
        return self.loss.seeds


def rows_of(records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> list[Row]:
    """Return a row for each method that was run."""
    main = [record for record in records if record.case.part == "methods"]
    return [_row(method, records, leaks) for method in in_order(record.case.method for record in main)]


def _row(method: MethodName, records: Sequence[Record], leaks: Sequence[LeakageRecord]) -> Row:
    def spread(value: Callable[[Record], float]) -> Spread:
        return spread_of(records, method, value)

    mine = [record for record in records if record.case.method == method]
    asked = next((record.quality for record in mine if record.case.part == "mortality"), None)
    return Row(
        method=method,
        loss=spread(lambda run: run.quality.loss),
        perplexity=spread(lambda run: math.exp(run.quality.loss)),
        auroc=asked and asked.auroc,
        auroc_se=asked and asked.auroc_se,
        bytes_up=spread(lambda run: run.bytes_up),
        bytes_down=spread(lambda run: run.bytes_down),
        training_cpu_s=spread(lambda run: run.cost.training_cpu_s),
        other_cpu_s=spread(lambda run: run.cost.other_cpu_s),
        wall_s=spread(lambda run: run.cost.wall_s),
        peak_mb=spread(lambda run: run.cost.peak_bytes / 1e6),
        peak_all_mb=spread(lambda run: run.cost.peak_all_bytes / 1e6),
        leakage_outside=_rate(leaks, method, OUTSIDE),
        leakage_inside=_rate(leaks, method, INSIDE),
        leakage_opened=_rate(leaks, method, OPENED, ROUND),
    )


def spread_of(records: Sequence[Record], method: MethodName, value: Callable[[Record], float]) -> Spread:
    """Return a number of a method's runs, by seed.

    Raises
    ------
    ValueError
        If the method was not run.
    """
    runs = [record for record in records if (record.case.part, record.case.method) == ("methods", method)]
    return Spread(by_seed={record.case.seed: value(record) for record in runs})


def leak_of(
    leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder, work: Work = "one step, 1 note"
) -> LeakageRecord | None:
    """Return the attack on such work; of DP-FL at the epsilon of the other figures."""
    for leak in leaks:
        case = leak.case
        same = (case.method, case.holder, case.work) == (method, holder, work)
        if same and case.members == MEMBERS and case.epsilon in (None, EPSILON):
            return leak
    return None


def _rate(
    leaks: Sequence[LeakageRecord], method: MethodName, holder: Holder, work: Work = "one step, 1 note"
) -> Range | None:
    leak = leak_of(leaks, method, holder, work)
    return leak.rate if leak else None
