"""CPU seconds and memory of this process and of all that it started, while something runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from types import TracebackType

import psutil

from fedpriv.experiments.comparison.record import Cost

_SAMPLE_S = 0.25
_SETTLED_S, _MOST_WAIT_S = 0.3, 5.0


class ProcessMeter:
    """Measures what happens inside its ``with`` block.

    CPU seconds of ended processes are known by those that waited for them. What a sandbox ends by killing it is waited
    for by nobody: so what each process was last seen to have used is added up too, and the larger sum counts.

    Of ``services`` and of this process the own time counts as ``other``; everything below them, which is training
    workers, as ``training``.

    Parameters
    ----------
    services : collection of int
        Process numbers of the domains.
    """

    def __init__(self, services: Collection[int] = ()) -> None:
        self._services = frozenset(services)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._peak, self._peak_all = 0, 0
        self._used: dict[tuple[int, float], float] = {}
        self._first: dict[tuple[int, float], float] = {}

    def __enter__(self) -> ProcessMeter:
        self._began, self._before = time.perf_counter(), self._settled()
        self._look()
        self._first = dict(self._used)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wall = time.perf_counter() - self._began
        self._after = self._settled()
        self._ended.set()
        self._thread.join()

    def cost(self, parts_s: dict[str, float] | None = None) -> Cost:
        """Return what the block took; to be called after it."""
        training, other = (after - before for after, before in zip(self._after, self._before, strict=True))
        training = max(training, sum(used - self._first.get(key, 0.0) for key, used in self._used.items()))
        return Cost(
            training_cpu_s=round(training, 3),
            other_cpu_s=round(other, 3),
            wall_s=round(self._wall, 3),
            peak_bytes=self._peak,
            peak_all_bytes=self._peak_all,
            parts_s=parts_s or {},
            load=round(os.getloadavg()[0], 2),
        )

    def _settled(self) -> tuple[float, float]:
        """Return the seconds once no process comes or goes: one that ends between two looks would be missed."""
        end = time.monotonic() + _MOST_WAIT_S
        processes, seconds = self._seconds()
        while time.monotonic() < end:
            time.sleep(_SETTLED_S)
            again, seconds = self._seconds()
            if again == processes:
                break
            processes = again
        return seconds

    def _seconds(self) -> tuple[frozenset[int], tuple[float, float]]:
        me = psutil.Process()
        training = other = 0.0
        seen = set[int]()
        for process in (me, *me.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            seen.add(process.pid)
            own = times.user + times.system
            below = times.children_user + times.children_system
            if process.pid == me.pid or process.pid in self._services:
                other, training = other + own, training + below
            else:
                training += own + below
        return frozenset(seen), (training, other)

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        """Note the memory of all processes, and what each below the services has used so far."""
        me, sizes = psutil.Process(), []
        for process in (me, *me.children(recursive=True)):
            try:
                sizes.append(process.memory_info().rss)
                if process.pid != me.pid and process.pid not in self._services:
                    times = process.cpu_times()
                    self._used[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        self._peak, self._peak_all = max(self._peak, *sizes), max(self._peak_all, sum(sizes))
