"""What a figure was made from: so that somebody else can make it again, and see whether it is the same."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import psutil

from fedpriv import __version__
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.record import Record, Records
from fedpriv.files import file_sha256

_PACKAGES = ("torch", "transformers", "peft", "tenseal", "numpy", "opacus", "dp-accounting", "syft")


def manifest_of(records: Records, command: str) -> dict[str, Any]:
    """Return versions, seeds, the machine, the settings, and the digests of all records and figures that are there.

    ``command`` is the last of those that measured.
    """
    folder = records.folder
    files = sorted(
        path
        for kind in ("runs/*.json", "leakage/*.json", "*.png", "*.svg", "figures.json")
        for path in folder.glob(kind)
    )
    return {
        "manifest_version": 1,
        "command": command,
        "seeds": sorted({record.case.seed for record in records.every("runs", Record)}),
        "settings": records.settings.model_dump(mode="json"),
        "methods": {name: method.about for name, method in METHODS.items()},
        "versions": {"fedpriv": __version__, "python": platform.python_version()} | _versions(),
        "machine": {
            "processor": _processor(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
        },
        "sha256": {str(path.relative_to(folder)): file_sha256(path) for path in files},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
