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
from dataclasses import replace
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
    return _peak({"work": "seal", "case": case_as_json(case), "folder": str(folder), "workers": workers})


def adding_memory(public: bytes, updates: list[tuple[SignedUpdate, Path]], folder: Path) -> float:
    """Return the peak memory of adding sealed updates over the base, as :func:`sealing_memory`; base after imports."""
    key = folder / "public-key"
    key.write_bytes(public)
    return _peak({"work": "add", "key": str(key), "updates": signed_as_json(updates), "folder": str(folder)})


def _peak(order: dict[str, Any]) -> float:
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
        if child.stdout.readline().strip() == "ready":
            tree = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
            peak = base = _bytes(tree)
            child.stdin.write("go\n")
            child.stdin.flush()
            while child.poll() is None:
                peak = max(peak, _bytes(tree))
                time.sleep(_EVERY_S)
            if len(tree) == 1:
                peak = max(peak, int(child.stdout.readline() or 0))
        if child.wait() or not base:
            raise ProtectionError(f"the process whose memory is measured failed: {child.stderr.read()[-500:]}")
    return (peak - base) / 1e6


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


def _seal(order: dict[str, Any]) -> None:
    case, folder = Case(**order["case"]), Path(order["folder"])
    small = Cohort(replace(case, measured=shape_of(Cohort(case).key.parameters, 0).width))
    cohort = Cohort(case)
    update, masks = cohort.update(0), cohort.masks(0)
    small.seal(0, small.masks(0), small.update(0), folder / "warm-up", workers=order["workers"])
    del small
    _ready()
    cohort.seal(0, masks, update, folder / "measured", workers=order["workers"])


def _add(order: dict[str, Any]) -> None:
    adder = adder_for(Path(order["key"]).read_bytes())
    updates = [(SignedUpdate.model_validate_json(json.dumps(signed)), Path(path)) for signed, path in order["updates"]]
    _ready()
    adder.add(updates, Path(order["folder"]) / "measured-sum")


def _tell_high_water() -> None:
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        sys.stdout.write(f"{int(found[1]) * 1024 if found else 0}\n")


if __name__ == "__main__":
    _order = json.loads(sys.stdin.readline())
    {"seal": _seal, "add": _add}[_order["work"]](_order)
    _tell_high_water()
