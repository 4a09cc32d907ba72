"""How adding sealed updates grows with the number of domains: memory, time, and the line through them.

Every update is really sealed by a member of the largest cohort: quantised, packed, tagged, masked towards every other
member and encrypted. Sums of fewer are of its first members, as when the others have disappeared. The sum of all is
unlocked and opened, and compared as integers with what was sealed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.errors import ConfigError, ProtectionError
from fedpriv.experiments.protection_case import STUDY, Case, Cohort
from fedpriv.experiments.protection_memory import Cost, adding_cost
from fedpriv.protection import MaskSource, adder_for, combine_unlocks, opener_for, sign_update
from fedpriv.protection.sizes import update_bytes
from fedpriv.study.messages import AggregateManifest, SignedUpdate

_BITS = 10
_REPEATS = 3
_MOST_WORKERS = 4
_LARGE = 1_000_000
"""Below it starting workers takes longer than they save."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What adding the updates of so many domains took: the least time and the most memory of three.

    Attributes
    ----------
    memory_mb : float
        Peak over the base, in a process of its own, MB (10^6 bytes).
    seconds, cpu_s : float
        Wall clock; CPU time.
    """

    domains: int
    memory_mb: float
    seconds: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line through times, by least squares.

    Attributes
    ----------
    ms_per_domain, start_ms : float
        Its slope, and where it starts.
    ns_per_parameter : float
        The slope over the number of parameters.
    r_squared : float
        Which part of the variance it explains; 1 is all.
    """

    ms_per_domain: float
    start_ms: float
    ns_per_parameter: float
    r_squared: float


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Adding, from few domains to many.

    Attributes
    ----------
    parameters, bits, update_bytes : int
        Of each update; its size as it lay on disk.
    points : tuple of Point
        From the fewest domains to the most.
    seconds, cpu : Line
        Through the wall clock and through the CPU time of the points.
    seal_s, open_s : float
        Wall clock of sealing one update in the largest cohort with ``workers`` processes (the mean), and of opening
        the largest sum with one.
    workers : int
        Processes that sealed.
    exact : bool
        Whether the largest sum opened to the sum of what was sealed; always, or the benchmark ends with an error.
    """

    parameters: int
    bits: int
    update_bytes: int
    points: tuple[Point, ...]
    seconds: Line
    cpu: Line
    seal_s: float
    open_s: float
    workers: int
    exact: bool


def measure_adding(
    folder: Path,
    *,
    parameters: int,
    domains: Sequence[int],
    on_progress: Callable[[str, float], None] = lambda what, done: None,
) -> Slope:
    """Seal the updates of the largest cohort, add them for each number of domains, and open the sum of all.

    Parameters
    ----------
    folder : Path
        For the containers, which stay until the caller removes it.
    parameters : int
        Of each update.
    domains : sequence of int
        How many updates are added, from the fewest to the most.
    on_progress : callable
        Called with what is done and which part of it is.

    Raises
    ------
    ConfigError
        If the containers do not fit the disk.
    ProtectionError
        If the sum of all did not open to what was sealed.
    """
    clients = domains[-1]
    case = Case(scheme="sealed", parameters=parameters, clients=clients, bits=_BITS, measured=parameters)
    cohort = Cohort(case)
    _require_room(folder, cohort)
    workers = min(_MOST_WORKERS, os.cpu_count() or 1) if parameters > _LARGE else 1
    integers = np.zeros(parameters, np.int64)
    sources: dict[str, MaskSource] = {}
    updates: list[tuple[SignedUpdate, Path]] = []
    seal_s = 0.0
    for member, keys in enumerate(cohort.keys):
        on_progress(f"sealing update {member + 1} of {clients}", 0.9 * member / clients)
        update, masks, path = cohort.update(member), cohort.masks(member), folder / f"update-{member}"
        started = time.perf_counter()
        sealed = cohort.seal(member, masks, update, path, workers=workers)
        seal_s += time.perf_counter() - started
        updates.append((sign_update(keys, cohort.header(member, masks), sealed.sha256, sealed.size_bytes), path))
        sources[keys.email] = masks
        integers += cohort.levels(member, update)
    points = []
    for number in domains:
        on_progress(f"adding {number} updates", 0.9 + 0.06 * number / clients)
        points.append(
            _point(number, [adding_cost(cohort.key.public, updates[:number], folder) for _ in range(_REPEATS)])
        )
    on_progress(f"opening the sum of {clients}", 0.97)
    return Slope(
        parameters=parameters,
        bits=_BITS,
        update_bytes=updates[0][0].container_bytes,
        points=tuple(points),
        seconds=line_through([(point.domains, point.seconds) for point in points], parameters),
        cpu=line_through([(point.domains, point.cpu_s) for point in points], parameters),
        seal_s=seal_s / clients,
        open_s=_open(cohort, sources, updates, integers, folder / "sum"),
        workers=workers,
        exact=True,
    )


def line_through(points: Sequence[tuple[int, float]], parameters: int) -> Line:
    """Fit a straight line to (domains, seconds) by least squares; at least three points that differ."""
    domains, seconds = np.array(points, np.float64).T
    slope, start = np.polyfit(domains, seconds, 1)
    missed = float(((seconds - start - slope * domains) ** 2).sum())
    spread = float(((seconds - seconds.mean()) ** 2).sum())
    return Line(
        ms_per_domain=float(slope) * 1e3,
        start_ms=float(start) * 1e3,
        ns_per_parameter=float(slope) / parameters * 1e9,
        r_squared=1 - missed / spread if spread else 0.0,
    )


def _point(domains: int, costs: Sequence[Cost]) -> Point:
    return Point(
        domains=domains,
        memory_mb=max(cost.memory_mb for cost in costs),
        seconds=min(cost.seconds for cost in costs),
        cpu_s=min(cost.cpu_s for cost in costs),
    )


def _require_room(folder: Path, cohort: Cohort) -> None:
    clients = cohort.case.clients
    needed = (clients + 3) * update_bytes(cohort.protection, tensors=cohort.tensors, clients=clients)
    free = shutil.disk_usage(folder).free
    if free < needed * 1.1:
        raise ConfigError(
            f"{clients} updates need {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB left",
            todo="make room, set TMPDIR to a larger disk, or give --quick",
        )


def _open(
    cohort: Cohort,
    sources: dict[str, MaskSource],
    updates: list[tuple[SignedUpdate, Path]],
    integers: np.ndarray,
    total: Path,
) -> float:
    """Unlock and open the sum of all updates, compare it, and return the seconds of opening."""
    digest, _ = adder_for(cohort.key.public).add(updates, total)
    signed = tuple(update for update, _ in updates)
    unlocked = combine_unlocks(signed, {email: masks.unlock(signed) for email, masks in sources.items()})
    manifest = AggregateManifest(
        study=STUDY, round=1, attempt=1, updates=signed, aggregate_sha256=digest, unlocked=unlocked
    )
    opener = opener_for(cohort.protection, cohort.key, cohort.tensors)
    started = time.perf_counter()
    opened = opener.open(total, manifest=manifest, scales=cohort.scales)
    open_s = time.perf_counter() - started
    if not np.array_equal(cohort.levels_of(opened.sum), integers):
        raise ProtectionError(f"the sum of {len(updates)} updates is not the sum of what was sealed")
    return open_s
