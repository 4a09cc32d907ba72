"""The watchdog: how much a training worker and all that descends from it use of this machine, and when that is enough.

The kernel's limits hold for one process each. What many processes use together, and what lies in files, is measured
from outside, a few times a second, and over a limit the whole tree is ended at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fedpriv.domain.folder import ResourcesChoice

_LOW_MEMORY = 0.03
"""Share of the machine's memory that stays free whatever a job has been allowed: memory in files of no process counts
for nobody, and the domain itself must not be the one that the kernel ends."""


@dataclass
class Watchdog:
    """Watches one worker at work on one job.

    Parameters
    ----------
    pid : int
        The process that the worker, or the sandbox around it, is.
    folder : Path
        What the job may write.
    resources : ResourcesChoice
        The limits.
    max_seconds : float
        Wall clock of the job.
    cpu_s : float
        Processor seconds of all its processes together.
    """

    pid: int
    folder: Path
    resources: ResourcesChoice
    max_seconds: float
    cpu_s: float
    peak_memory_bytes: int = 0
    _started_s: float = field(default_factory=time.monotonic)
    _before_bytes: int = field(init=False)
    _before_cpu_s: float = field(init=False)
    _before_processes: int = field(init=False)

    def __post_init__(self) -> None:
        tree = _tree(self.pid)
        self._before_bytes = _size(self.folder)
        self._before_cpu_s = sum(map(_cpu_s, tree))
        self._before_processes = sum(map(_threads, tree))

    def breach(self) -> str | None:
        """Return which limit is broken, in words, or None."""
        resources, tree, machine = self.resources, _tree(self.pid), psutil.virtual_memory()
        memory = sum(map(_memory, tree))
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        limits = (
            (time.monotonic() - self._started_s, self.max_seconds, f"it took longer than {self.max_seconds:.0f} s"),
            (
                sum(map(_cpu_s, tree)) - self._before_cpu_s,
                self.cpu_s,
                f"it used more than {self.cpu_s:.0f} processor seconds",
            ),
            (memory, resources.memory_bytes, f"it used more than {resources.memory_gb:g} GB of memory"),
            (
                sum(map(_threads, tree)) - self._before_processes,
                resources.processes,
                f"it started more than {resources.processes} processes",
            ),
            (
                _size(self.folder) - self._before_bytes,
                resources.disk_bytes,
                f"it wrote more than {resources.disk_gb:g} GB",
            ),
            (_LOW_MEMORY * machine.total, machine.available, "this machine ran out of memory"),
        )
        return next((words for used, most, words in limits if used > most), None)


def end_tree(pid: int) -> None:
    """Kill a worker, what leads its sandbox, and whatever descends from either; nothing is reaped here.

    In bubblewrap the kernel itself ends every process of the sandbox with the first one of it. Without, the worker is
    killed last, since its orphans come to it (:func:`fedpriv.training.descendants.adopt_descendants`).
    """
    for process in reversed(_tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in reversed(_tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    """Return the resident bytes that no file on disk could give back: memory of its own, and shared memory."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
            values = (line.split()[1] for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))
            return 1024 * sum(map(int, values))
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return times.user + times.system + times.children_user + times.children_system
    return 0.0


def _threads(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return process.num_threads()
    return 0


def _size(folder: Path) -> int:
    """Return the bytes on disk of all files below a folder; links are not followed."""
    total, folders = 0, [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
