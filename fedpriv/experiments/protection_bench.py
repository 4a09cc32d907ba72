"""``fedpriv bench protection``: bytes, time, memory and error of every level of protection, on the same updates.

Each row really seals the updates of all its clients, adds them, unlocks and opens the sum through the same calls as
domains and aggregator. ``docs/benchmarks.md`` says how each figure is taken. At levels that quantise, the opened sum is
compared as integers with the sum of the quantised updates, computed beside; a difference ends the benchmark.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fedpriv.errors import ProtectionError
from fedpriv.experiments.protection_case import STUDY, Case, Cohort
from fedpriv.experiments.protection_memory import adding_cost, sealing_memory
from fedpriv.experiments.target import Target
from fedpriv.protection import MaskSource, adder_for, combine_unlocks, opener_for, sign_update
from fedpriv.protection.ckks import VALUES as CKKS_VALUES
from fedpriv.protection.ckks_tuned import VALUES as TUNED_VALUES
from fedpriv.protection.ckks_tuned import make_ckks_tuned_key, seal_stream_bytes
from fedpriv.protection.packing import plan_packing
from fedpriv.protection.plain import WIDTH as PLAIN_VALUES
from fedpriv.study.messages import AggregateManifest, SignedUpdate, Unlocked
from fedpriv.study.protection_choice import ProtectionLevel

SMALL, LARGE = 460_800, 5_000_000
"""Parameters: LoRA of rank 4 on SmolLM2-135M's query and value projections, and of a model of some billions."""

CLIENTS = (4, 16, 64)
BITS = (4, 5, 8, 10, 16)
_TIMED_CLIENTS = 4
_REPEATS, _CHEAP_S = 3, 2.0
_MATCHING_BITS = range(11, 17)

_BLOCK: dict[ProtectionLevel, int] = {"ckks": CKKS_VALUES, "ckks-tuned": TUNED_VALUES, "plain": PLAIN_VALUES}
"""Values in a block of a baseline. Its cost is strictly by block, so that not every block has to be measured."""

_TIMED_BLOCKS = 64
"""Blocks of a baseline whose sealing is timed, at least: the fixed cost, such as loading a key, must not count."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured in one case; times are nanoseconds, memory MB (10^6 bytes), None where not measured.

    Attributes
    ----------
    seal_ns_per_parameter : float
        CPU time of all threads and worker processes, the least of four clients.
    aggregate_ns_per_parameter_client, open_ns_per_parameter : float
        Wall clock.
    aggregate_cpu_ns_per_parameter_client, open_cpu_ns_per_parameter : float
        The CPU time of the same, which other work on the machine disturbs less.
    client_rss_mb, add_rss_mb : float or None
        Peak over the base, of a sealing domain and of the aggregator.
    rms_error : float
        Of the mean of the updates, against the float updates, in standard deviations of an update.
    exact : bool
        Whether the opened sum is the sum of what was sealed, to the last bit.
    measured_parameters : int
        How many parameters were really protected.
    clip_deviations : float
        Where values were clipped, in standard deviations.
    workers : int
        Processes that sealed and opened.
    """

    scheme: ProtectionLevel
    parameters: int
    clients: int
    bits: int
    up_bytes_per_parameter: float
    down_bytes_per_parameter: float
    seal_ns_per_parameter: float
    aggregate_ns_per_parameter_client: float
    open_ns_per_parameter: float
    client_rss_mb: float | None
    rms_error: float
    exact: bool
    measured_parameters: int
    security: str
    clip_deviations: float
    add_rss_mb: float | None
    workers: int
    aggregate_cpu_ns_per_parameter_client: float
    open_cpu_ns_per_parameter: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows and what follows from them."""

    rows: tuple[Row, ...]
    ratios: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"rows": [asdict(row) for row in self.rows], "ratios": self.ratios}


Progress = Callable[[str, float], None]
"""Called with what is measured now, and the fraction of the whole that is done."""


def run_protection_bench(*, quick: bool, workers: int = 1, on_progress: Progress = lambda what, done: None) -> Report:
    """Measure everything.

    Parameters
    ----------
    quick : bool
        The small update only, fewer cases: under a minute, for a look; times are rough.
    workers : int
        Processes that seal and open.
    on_progress : callable
        See :data:`Progress`.

    Raises
    ------
    ProtectionError
        If an opened sum is not the sum of what was sealed.
    """
    most = 16_000_000 if quick else 64 * LARGE
    cases = list(_cases(quick, most))
    costs = [case.clients * case.measured + 2_000_000 for case in cases]
    matching_cost, speed_cost = (20_000_000, 8_000_000) if quick else (60_000_000, 60_000_000)
    whole, done = sum(costs) + matching_cost + speed_cost, 0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as name:
        folder = Path(name)
        for case, cost in zip(cases, costs, strict=True):
            on_progress(_title(case), done / whole)
            same = [row for row in rows if _alike(row, case)]
            if same:  # so few blocks are measured that they are the same ones for both sizes
                rows.append(replace(same[0], parameters=case.parameters))
            else:
                rows.append(measure(case, folder, workers=workers, memory=_wants_memory(case, quick)))
            done += cost
        tuned = [row for row in rows if row.scheme == "ckks-tuned" and row.parameters == SMALL]
        for row in tuned:
            on_progress(f"fewest bits as exact as tuned CKKS, {row.clients} clients", done / whole)
            rows += _matching(row, rows, folder, workers, most)
            done += matching_cost / len(tuned)
        on_progress("two workers against one", done / whole)
        speed = _speedup(folder, LARGE // 4 if quick else LARGE, pairs=2 if quick else 8)
    on_progress("done", 1.0)
    rows.sort(key=lambda row: (row.parameters, _ORDER.index(row.scheme), row.clients, row.bits))
    return Report(rows=tuple(rows), ratios=_ratios(rows, SMALL if quick else LARGE) | {"two_workers_speedup": speed})


_ORDER: tuple[ProtectionLevel, ...] = ("sealed", "masked", "ckks", "ckks-tuned", "plain")


def _sealed(size: int, clients: int, bits: int, most: int) -> Case:
    """Return a case of level sealed; with more than ``most`` values of all clients, only whole blocks up to it."""
    width = plan_packing(bits=bits, clients=clients, security="tc192").width
    measured = size if clients * size <= most else most // clients // width * width
    return Case(scheme="sealed", parameters=size, clients=clients, bits=bits, measured=measured)


def _cases(quick: bool, most_sealed: int) -> Iterator[Case]:
    for size in (SMALL,) if quick else (SMALL, LARGE):
        for clients in CLIENTS:
            for bits in BITS if clients == CLIENTS[0] else (10,):
                yield _sealed(size, clients, bits, most_sealed)
            if not quick or clients == CLIENTS[0]:
                yield Case(scheme="masked", parameters=size, clients=clients, bits=10, measured=size)
            for scheme, block in _BLOCK.items():
                blocks = max(512 // clients, _TIMED_BLOCKS)
                measured = min(size, (blocks // 8 if quick and scheme != "plain" else blocks) * block)
                yield Case(scheme=scheme, parameters=size, clients=clients, bits=0, measured=measured)


def _wants_memory(case: Case, quick: bool) -> bool:
    return not quick or (case.scheme == "sealed" and case.bits == 10 and case.clients == CLIENTS[0])


def _title(case: Case) -> str:
    bits = f" at {case.bits} bits" if case.bits else ""
    return f"{case.scheme}{bits}, {case.clients} clients, {case.parameters:,} parameters"


def measure(case: Case, folder: Path, *, workers: int = 1, memory: bool = False) -> Row:
    """Seal, add, unlock and open one case.

    Parameters
    ----------
    case : Case
        What.
    folder : Path
        For the containers of all clients, which are deleted afterwards.
    workers : int
        Processes that seal and open.
    memory : bool
        Whether the peak memory is measured too.

    Raises
    ------
    ProtectionError
        If the opened sum is not the sum of what was sealed.
    """
    cohort = Cohort(case)
    number, clients = case.measured, case.clients
    integers = np.zeros(number, np.int64)
    floats = np.zeros(number, np.float64)
    sources: dict[str, MaskSource] = {}
    updates: list[tuple[SignedUpdate, Path]] = []
    seal_s: list[float] = []
    for member, keys in enumerate(cohort.keys):
        update, masks, path = cohort.update(member), cohort.masks(member), folder / f"update-{member}"
        before = _cpu_seconds()
        sealed = cohort.seal(member, masks, update, path, workers=workers)
        if member < _TIMED_CLIENTS:
            seal_s.append((_cpu_seconds() - before) / number)
        updates.append((sign_update(keys, cohort.header(member, masks), sealed.sha256, sealed.size_bytes), path))
        sources[keys.email] = masks
        floats += update
        if cohort.quantised:
            integers += cohort.levels(member, update)
    adder, total = adder_for(cohort.key.public), folder / "sum"
    (digest, down), add_s, add_cpu_s = _timed(lambda: adder.add(updates, total))
    signed = tuple(update for update, _ in updates)
    unlocked = Unlocked()
    if cohort.quantised:
        unlocked = combine_unlocks(signed, {email: masks.unlock(signed) for email, masks in sources.items()})
    manifest = AggregateManifest(
        study=STUDY, round=1, attempt=1, updates=signed, aggregate_sha256=digest, unlocked=unlocked
    )
    opener = opener_for(cohort.protection, cohort.key, cohort.tensors, workers=workers)
    opened, open_s, open_cpu_s = _timed(lambda: opener.open(total, manifest=manifest, scales=cohort.scales))
    if cohort.quantised:
        exact = np.array_equal(cohort.levels_of(opened.sum), integers)
        if not exact:
            raise ProtectionError(f"{_title(case)}: the opened sum is not the sum of the quantised updates")
    else:
        exact = np.array_equal(opened.sum, floats.astype(np.float32))
    error = (opened.sum - floats) / clients / cohort.deviation
    measured_adding = memory and cohort.quantised and case.bits == 10 and clients in (CLIENTS[0], CLIENTS[-1])
    add_mb = adding_cost(cohort.key.public, updates, folder).memory_mb if measured_adding else None
    for _, path in updates:
        path.unlink()
    return Row(
        scheme=case.scheme,
        parameters=case.parameters,
        clients=clients,
        bits=case.bits,
        up_bytes_per_parameter=updates[0][0].container_bytes / number,
        down_bytes_per_parameter=down / number,
        seal_ns_per_parameter=1e9
        * (min(seal_s) if cohort.quantised else _baseline_seal_s(case.scheme, folder, workers)),
        aggregate_ns_per_parameter_client=add_s / number / clients * 1e9,
        open_ns_per_parameter=open_s / number * 1e9,
        client_rss_mb=sealing_memory(case, folder, workers=workers) if memory else None,
        rms_error=float(np.sqrt(np.mean(error**2))),
        exact=exact,
        measured_parameters=number,
        security=_security(case),
        clip_deviations=case.clip,
        add_rss_mb=add_mb,
        workers=workers,
        aggregate_cpu_ns_per_parameter_client=add_cpu_s / number / clients * 1e9,
        open_cpu_ns_per_parameter=open_cpu_s / number * 1e9,
    )


@functools.lru_cache
def _baseline_seal_s(scheme: ProtectionLevel, folder: Path, workers: int) -> float:
    """Return the CPU seconds that a baseline takes to seal a parameter, over enough blocks; however many clients."""
    measured = _TIMED_BLOCKS * _BLOCK[scheme]
    cohort = Cohort(Case(scheme=scheme, parameters=measured, clients=CLIENTS[0], bits=0, measured=measured))
    seconds: list[float] = []
    for member in range(_TIMED_CLIENTS):
        update, masks, before = cohort.update(member), cohort.masks(member), _cpu_seconds()
        cohort.seal(member, masks, update, folder / "timed", workers=workers)
        seconds.append(_cpu_seconds() - before)
    return min(seconds) / measured


def _security(case: Case) -> str:
    """Return SEAL's level of classical security of the encryption."""
    return {"sealed": case.security, "ckks": "tc128", "ckks-tuned": "tc256"}.get(case.scheme, "none")


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what ``work`` gives, its wall clock and its CPU time in seconds; the least of three if it is quick."""
    wall: list[float] = []
    cpu: list[float] = []
    result = None
    while not wall or (len(wall) < _REPEATS and sum(wall) < _CHEAP_S):
        started, before = time.perf_counter(), _cpu_seconds()
        result = work()
        wall.append(time.perf_counter() - started)
        cpu.append(_cpu_seconds() - before)
    return result, min(wall), min(cpu)


def _cpu_seconds() -> float:
    """Return the CPU time that this process and its workers have used, those included that have ended.

    The fork server waits for the workers that end, so that the system adds their time to its own.
    """
    seconds = time.process_time()
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        seconds += times.user + times.system
        seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


def _matching(tuned: Row, known: list[Row], folder: Path, workers: int, most: int) -> list[Row]:
    """Return rows of level sealed up to the fewest bits that are as exact as tuned CKKS.

    Where to start is found by rounding alone, for four clients: both errors fall with the root of their number.
    """
    rows: list[Row] = []
    first = next((b for b in _MATCHING_BITS if _rounding_error(b) <= tuned.rms_error * tuned.clients**0.5), 16)
    for bits in range(first, _MATCHING_BITS.stop):
        case = _sealed(SMALL, tuned.clients, bits, most)
        row = next((row for row in known if _is(row, "sealed", SMALL, tuned.clients, bits)), None)
        if row is None:
            row = measure(case, folder, workers=workers)
            rows.append(row)
        if row.rms_error <= tuned.rms_error:
            break
    return rows


@functools.lru_cache
def _rounding_error(bits: int) -> float:
    """Return the root mean square error of one update of ``bits`` bits, in its standard deviations."""
    number = 200_000
    cohort = Cohort(Case(scheme="masked", parameters=number, clients=2, bits=bits, measured=number))
    update = cohort.update(0)
    return float(np.sqrt(np.mean(((cohort.floats_of(cohort.levels(0, update)) - update) / cohort.deviation) ** 2)))


def _speedup(folder: Path, size: int, *, pairs: int) -> float:
    """Return how much faster two processes seal than one: wall clock, medians of alternating runs after a first."""
    cohort = Cohort(Case(scheme="sealed", parameters=size, clients=CLIENTS[0], bits=10, measured=size))
    update, masks = cohort.update(0), cohort.masks(0)
    seconds: dict[int, list[float]] = {2: [], 1: []}
    for _ in range(1 + pairs):
        for workers, found in seconds.items():
            started = time.perf_counter()
            cohort.seal(0, masks, update, folder / "sped-up", workers=workers)
            found.append(time.perf_counter() - started)
            (folder / "sped-up").unlink()
    return statistics.median(seconds[1][1:]) / statistics.median(seconds[2][1:])


def _alike(row: Row, case: Case) -> bool:
    return (row.scheme, row.clients, row.bits, row.measured_parameters) == (
        case.scheme,
        case.clients,
        case.bits,
        case.measured,
    )


def _is(row: Row, scheme: str, size: int, clients: int, bits: int) -> bool:
    return (row.scheme, row.parameters, row.clients, row.bits) == (scheme, size, clients, bits)


def _row(rows: list[Row], scheme: str, size: int, clients: int, bits: int) -> Row:
    return next(row for row in rows if _is(row, scheme, size, clients, bits))


def _ratios(rows: list[Row], size: int) -> dict[str, Any]:
    """Return what the baselines cost against level sealed at 10 bits, or at matched error, by number of clients."""
    ratios: dict[str, Any] = {
        name: {}
        for name in (
            "default_ckks_over_sealed_bytes",
            "tuned_ckks_over_sealed_bytes",
            "tuned_ckks_over_sealed_bytes_at_matched_error",
            "tuned_ckks_over_sealed_bytes_at_matched_error_as_seal_writes_it",
            "matched_bits",
            "default_ckks_over_sealed_seal_cpu",
            "plain_over_sealed_bytes",
        )
    }
    seal_bytes = seal_stream_bytes(make_ckks_tuned_key()) / TUNED_VALUES
    for clients in CLIENTS:
        name = str(clients)
        sealed, default = (_row(rows, s, size, clients, b) for s, b in (("sealed", 10), ("ckks", 0)))
        tuned = _row(rows, "ckks-tuned", SMALL, clients, 0)
        ratios["default_ckks_over_sealed_bytes"][name] = default.up_bytes_per_parameter / sealed.up_bytes_per_parameter
        ratios["default_ckks_over_sealed_seal_cpu"][name] = default.seal_ns_per_parameter / sealed.seal_ns_per_parameter
        ratios["tuned_ckks_over_sealed_bytes"][name] = tuned.up_bytes_per_parameter / sealed.up_bytes_per_parameter
        ratios["plain_over_sealed_bytes"][name] = 4 / sealed.up_bytes_per_parameter
        like = [row for row in rows if row.scheme == "sealed" and row.parameters == SMALL and row.clients == clients]
        matched = min((row for row in like if row.rms_error <= tuned.rms_error), key=lambda row: row.bits, default=None)
        over = "tuned_ckks_over_sealed_bytes_at_matched_error"
        ratios["matched_bits"][name] = matched.bits if matched else None
        ratios[over][name] = tuned.up_bytes_per_parameter / matched.up_bytes_per_parameter if matched else None
        ratios[f"{over}_as_seal_writes_it"][name] = seal_bytes / matched.up_bytes_per_parameter if matched else None
    return ratios


def targets(report: Report) -> list[Target]:
    """Return what must be reached, and whether it was, for each size that was measured."""
    rows, ratios = list(report.rows), report.ratios
    found: list[Target] = []

    def add(what: str, value: float | None, limit: float, *, unit: str, at_least: bool = False) -> None:
        if value is not None:
            met = value >= limit if at_least else value <= limit
            wanted = f"{'≥' if at_least else '≤'} {limit:g} {unit}"
            found.append(Target(what=what, wanted=wanted, measured=f"{value:.3g} {unit}", met=met))

    for size in sorted({row.parameters for row in rows}):
        for clients, most in zip(CLIENTS, (1.65, 2.0, 2.4), strict=True):
            sealed, default = (_row(rows, s, size, clients, b) for s, b in (("sealed", 10), ("ckks", 0)))
            at = f"K={clients}, {size / 1e6:.2f}M"
            up, seal = sealed.up_bytes_per_parameter, sealed.seal_ns_per_parameter
            add(f"upload at 10 bits, {at}", up, most, unit="B")
            add(f"default CKKS's bytes, {at}", default.up_bytes_per_parameter / up, 24, unit="x", at_least=True)
            add(f"default CKKS's CPU, {at}", default.seal_ns_per_parameter / seal, 12, unit="x", at_least=True)
            add(f"client memory, {at}", sealed.client_rss_mb, 50, unit="MB")
            add(f"aggregation, {at}", sealed.aggregate_ns_per_parameter_client, 10, unit="ns")
            if clients <= 16:
                add(f"opening, {at}", sealed.open_ns_per_parameter, 300, unit="ns")
        few = _row(rows, "sealed", size, CLIENTS[0], 4).up_bytes_per_parameter
        add(f"upload at 4 bits, K={CLIENTS[0]}, {size / 1e6:.2f}M", few, 0.85, unit="B")
    for clients, ratio in ratios["tuned_ckks_over_sealed_bytes_at_matched_error"].items():
        add(f"tuned CKKS's bytes at equal error, K={clients}", ratio, 3, unit="x", at_least=True)
    add("two workers", ratios["two_workers_speedup"], 1.4, unit="x", at_least=True)
    return found
