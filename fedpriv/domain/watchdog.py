"""The watchdog: how much a training worker and all that descends from it use of this machine, and when that is enough.

The kernel's limits hold for one process each. What many processes use together, and what lies in files, is measured
from outside, a few times a second, and over a limit the whole tree is ended at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fedpriv.domain.folder import ResourcesChoice

_PATIENCE_S = 10.0
_LOW_MEMORY = 0.03
"""Share of the machine's memory that stays free whatever a job has been allowed: memory in files of no process counts
for nobody, and the domain itself must not be the one that the kernel ends."""

_HIGHER = 1.1
"""A high is new if it is higher than the last one by this."""


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
    _most_bytes: int = field(default=0, init=False)
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
        return next((words for used, most, words in self._measured() if used > most), None)

    def _measured(self) -> Iterator[tuple[float, float, str]]:
        """Yield use, limit and words of each kind, what grows fastest first: each is measured only if asked for."""
        resources, tree, machine = self.resources, _tree(self.pid), psutil.virtual_memory()
        count = sum(map(_threads, tree)) - self._before_processes
        yield count, resources.processes, f"it started more than {resources.processes} processes"
        yield _LOW_MEMORY * machine.total, machine.available, "this machine ran out of memory"
        yield self._memory(tree), resources.memory_bytes, f"it used more than {resources.memory_gb:g} GB of memory"
        size = _size(self.folder) - self._before_bytes
        yield size, resources.disk_bytes, f"it wrote more than {resources.disk_gb:g} GB"
        yield time.monotonic() - self._started_s, self.max_seconds, f"it took longer than {self.max_seconds:.0f} s"
        cpu = sum(map(_cpu_s, tree)) - self._before_cpu_s
        yield cpu, self.cpu_s, f"it used more than {self.cpu_s:.0f} processor seconds"

    def _memory(self, tree: list[psutil.Process]) -> int:
        """Return the memory of these processes: exactly near the limit and at a new high, else what it is at most.

        For the exact one the kernel walks through every page, to divide what is shared: 12 ms for a GB, in which the
        process gets no new ones. What the kernel counts anyway is never less than that.
        """
        most = sum(map(_most_memory, tree))
        if most <= self.resources.memory_bytes and most <= _HIGHER * self._most_bytes:
            return most
        self._most_bytes = max(self._most_bytes, most)
        memory = sum(map(_memory, tree))
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        return memory


def end_tree(pid: int, *, own_namespace: bool) -> None:
    """Kill a worker and whatever descends from it, and wait until they are gone.

    Parameters
    ----------
    own_namespace : bool
        Whether ``pid`` leads a namespace of processes (bubblewrap): the kernel ends all of it with its first process,
        however fast they multiply. Otherwise everything is stopped, and then killed with the worker last, since its
        orphans come to it (:func:`fedpriv.training.descendants.adopt_descendants`).
    """
    tree = _tree(pid)
    if own_namespace and tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for action in (psutil.Process.suspend, psutil.Process.kill):
        for process in reversed(tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                action(process)
        tree = list({*tree, *_tree(pid)})
    psutil.wait_procs(tree, timeout=_PATIENCE_S)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    """Return the bytes that no file on disk could give back; what processes share is divided among them."""
    exact = _added(process, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
    return _most_memory(process) if exact is None else exact


def _most_memory(process: psutil.Process) -> int:
    """Return the same bytes with what processes share counted for each of them: more, and at no cost."""
    if sys.platform == "linux" and (most := _added(process, "status", ("RssAnon:", "RssShmem:"))) is not None:
        return most
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _added(process: psutil.Process, file: str, fields: tuple[str, ...]) -> int | None:
    """Return the sum of some lines, in kB there, of a file that the kernel keeps of a process; None without it."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{process.pid}/{file}").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(fields))
    return None


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
