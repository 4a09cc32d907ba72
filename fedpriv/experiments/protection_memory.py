"""Peak memory of a sealing domain and of the aggregator, each in a process of its own that does nothing else.

``python -m fedpriv.experiments.protection_memory`` is that process: it gets ready, says so, waits for a line, works,
and ends. What counts is resident memory: the kernel's own high-water mark where it can be reset (Linux, no workers),
so that no peak is missed, and else what the process that started it samples. Proportional or unique set sizes will not
do: they fall by tens of MB when an unrelated process maps the same libraries meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from fedpriv.errors import ProtectionError
from fedpriv.experiments.protection_case import Case, Cohort, case_as_json, signed_as_json
from fedpriv.protection import adder_for
from fedpriv.protection.levels import shape_of
from fedpriv.study.messages import SignedUpdate

_EVERY_S = 0.004


def sealing_memory(case: Case, folder: Path, *, workers: int = 1) -> float:
    """Return the peak memory of sealing one update over the process's base, in MB (10^6 bytes).

    The base is taken when everything is imported, the key, the masks' keys and the update are in memory, and one
    block was sealed with another key to warm up, which also starts the workers. With workers, pages that processes
    share count once for each.

    Raises
    ------
    ProtectionError
        If the process failed.
    """
    order = {"work": "seal", "case": case_as_json(case), "folder": str(folder), "workers": workers}
    return _cost(order).memory_mb


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a piece of work took in a process of its own.

    Attributes
    ----------
    memory_mb : float
        Peak over the base, MB (10^6 bytes).
    seconds, cpu_s : float
        Wall clock; CPU time of the process.
    """

    memory_mb: float
    seconds: float
    cpu_s: float


def adding_cost(public: bytes, updates: list[tuple[SignedUpdate, Path]], folder: Path) -> Cost:
    """Return what adding sealed updates took; the base is taken after imports, with the signed headers in memory."""
    key = folder / "public-key"
    key.write_bytes(public)
    return _cost({"work": "add", "key": str(key), "updates": signed_as_json(updates), "folder": str(folder)})


def _cost(order: dict[str, Any]) -> Cost:
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise RuntimeError("a pipe is missing")
    with child:
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        peak = base = 0
        told: dict[str, float] = {}
        if child.stdout.readline().strip() == "ready":
            tree = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
            peak = base = _bytes(tree)
            child.stdin.write("go\n")
            child.stdin.flush()
            while child.poll() is None:
                peak = max(peak, _bytes(tree))
                time.sleep(_EVERY_S)
            told = json.loads(child.stdout.readline() or "{}")
            if len(tree) == 1:
                peak = max(peak, int(told.get("high_water", 0)))
        if child.wait() or not base:
            raise ProtectionError(f"the process whose memory is measured failed: {child.stderr.read()[-500:]}")
    return Cost(memory_mb=(peak - base) / 1e6, seconds=told.get("seconds", 0.0), cpu_s=told.get("cpu_s", 0.0))


def _bytes(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total


def _ready() -> None:
    gc.collect()
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _seal(order: dict[str, Any]) -> Callable[[], Any]:
    case, folder = Case(**order["case"]), Path(order["folder"])
    small = Cohort(replace(case, measured=shape_of(Cohort(case).key.parameters, 0).width))
    cohort = Cohort(case)
    update, masks = cohort.update(0), cohort.masks(0)
    small.seal(0, small.masks(0), small.update(0), folder / "warm-up", workers=order["workers"])
    del small
    return lambda: cohort.seal(0, masks, update, folder / "measured", workers=order["workers"])


def _add(order: dict[str, Any]) -> Callable[[], Any]:
    adder = adder_for(Path(order["key"]).read_bytes())
    updates = [(SignedUpdate.model_validate_json(json.dumps(signed)), Path(path)) for signed, path in order["updates"]]
    return lambda: adder.add(updates, Path(order["folder"]) / "measured-sum")


def _high_water() -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def _main() -> None:
    order = json.loads(sys.stdin.readline())
    work = {"seal": _seal, "add": _add}[order["work"]](order)
    _ready()
    started, before = time.perf_counter(), time.process_time()
    work()
    told = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - before}
    sys.stdout.write(json.dumps(told | {"high_water": _high_water()}) + "\n")


if __name__ == "__main__":
    _main()
