"""What a figure was made from: so that somebody else can make it again, and see whether it is the same."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil

from fedpriv import __version__
from fedpriv.experiments.comparison.leakage import LEAKAGE, LeakageRecord
from fedpriv.experiments.comparison.made import Made, processor
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.record import Record, Records
from fedpriv.files import file_sha256

_PACKAGES = ("torch", "transformers", "peft", "tenseal", "numpy", "opacus", "dp-accounting", "syft")


def manifest_of(records: Records, command: str) -> dict[str, Any]:
    """Return versions, seeds, the machine, the settings, and the digests of all records and figures that are there.

    ``command`` is the last of those that measured; ``versions`` and ``machine`` are of what drew the figures, and
    ``measured`` says by what their records were made.
    """
    folder = records.folder
    runs = records.every("runs", Record)
    files = sorted(
        path
        for kind in ("runs/*.json", "leakage/*.json", "*.png", "*.svg", "figures.json")
        for path in folder.glob(kind)
    )
    return {
        "manifest_version": 1,
        "command": command,
        "seeds": sorted({record.case.seed for record in runs}),
        "settings": records.settings.model_dump(mode="json"),
        "methods": {name: method.about for name, method in METHODS.items()},
        "versions": {"fedpriv": __version__, "python": platform.python_version()} | _versions(),
        "machine": {
            "processor": processor(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
        },
        "measured": _measured([record.made for record in (*runs, *records.every(LEAKAGE, LeakageRecord))]),
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


def _measured(made: Sequence[Made | None]) -> dict[str, Any]:
    """Return how many records each version of the source made, on which processors, and between which days."""
    known = [each for each in made if each is not None]
    days = [time.strftime("%Y-%m-%d", time.gmtime(each.at_s)) for each in known]
    return {
        "records_by_source": dict(sorted(Counter(each.source if each else "not recorded" for each in made).items())),
        "records_by_processor": dict(
            sorted(
                Counter(f"{each.processor}, {each.cores} cores" if each else "not recorded" for each in made).items()
            )
        ),
        "from": min(days, default=None),
        "to": max(days, default=None),
    }
