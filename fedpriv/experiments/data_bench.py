"""``fedpriv bench data``: preparing a made-up MIMIC-III of full size, killed once on the way.

``docs/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil

from fedpriv.clinical.store import load_prepared
from fedpriv.clinical.synthetic import full_size, write_synthetic
from fedpriv.errors import DataError
from fedpriv.experiments.target import Target

OnProgress = Callable[[str, float], None]

MOST_MINUTES, MOST_MEMORY_MB = 20.0, 4096.0
NOTES = ("discharge summary", "radiology", "nursing")
_LOOK_EVERY_S = 0.05
_KILLED_AT = "telling"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured.

    Attributes
    ----------
    share : float
        Of MIMIC-III's size.
    admissions, notes : int
        How many were made.
    notes_bytes, notes_gz_bytes : int
        Size of NOTEEVENTS, and of its file.
    seconds : float
        Wall clock of the whole preparation: the part before the kill and the part after it.
    seconds_before_kill : float
        Of these, before SIGKILL came.
    killed_at : str
        The stage at that moment.
    peak_memory_mb : float
        The most resident memory of the process and its children that was seen, MB.
    cpu_s : float
        Processor time of the process that went on to the end, seconds.
    read_s : float
        The alternative: wall clock in which Python's ``csv.reader`` only reads the same NOTEEVENTS.csv.gz, in the same
        run, on the same machine.
    examples, heldout_examples : int
        What was prepared.
    refused : int
        Rows that were refused; the tables have nothing wrong with them.
    cores : int
        Of this machine.
    load : float
        Processes that ran or waited in the last minute; above ``cores``, they queue.
    """

    share: float
    admissions: int
    notes: int
    notes_bytes: int
    notes_gz_bytes: int
    seconds: float
    seconds_before_kill: float
    killed_at: str
    peak_memory_mb: float
    cpu_s: float
    read_s: float
    examples: int
    heldout_examples: int
    refused: int
    cores: int
    load: float

    def as_json(self) -> dict[str, Any]:
        """Return everything, ratio and targets included."""
        body = asdict(self) | {
            "whole_preparation_over_csv_reader": self.seconds / self.read_s,
            "notes_per_s": self.notes / self.seconds,
        }
        return body | {"targets": [asdict(target) for target in targets(self)]}


def run_data_bench(
    *, share: float = 1.0, seed: int = 0, folder: Path | None = None, on_progress: OnProgress = lambda what, done: None
) -> Report:
    """Make tables, prepare them in a process that is killed once, and read them with ``csv.reader``.

    Parameters
    ----------
    share : float
        Of MIMIC-III's 58,976 admissions and 2,083,180 notes; 1 takes ten minutes on two quiet cores.
    seed : int
        Chooses the made-up patients.
    folder : Path, optional
        Where the tables are, or are made if they are not there; by default a temporary folder.
    on_progress : Callable[[str, float], None]
        Called with what is done and the done fraction of it.

    Raises
    ------
    DataError
        If the preparation fails.
    """
    with tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as scratch:
        tables = folder or Path(scratch) / "tables"
        if not (tables / "NOTEEVENTS.csv.gz").exists():
            size = full_size(share)
            write_synthetic(tables, seed=seed, size=size, on_progress=lambda done: on_progress("making tables", done))
        notes_gz = tables / "NOTEEVENTS.csv.gz"
        on_progress("reading with csv.reader", 0.0)
        read_s, notes = _read_with_csv(notes_gz)
        store = Path(scratch) / "store"
        before = _Prepare(tables, store, on_progress)
        killed_at = before.run(kill_at=_KILLED_AT)
        after = _Prepare(tables, store, on_progress)
        after.run()
        prepared = load_prepared(store / str(after.result["digest"]))
        return Report(
            share=share,
            admissions=int(after.result["admissions"]),
            notes=notes,
            notes_bytes=int(after.result["notes_bytes"]),
            notes_gz_bytes=notes_gz.stat().st_size,
            seconds=before.seconds + after.seconds,
            seconds_before_kill=before.seconds,
            killed_at=killed_at,
            peak_memory_mb=max(before.peak_mb, after.peak_mb),
            cpu_s=after.cpu_s,
            read_s=read_s,
            examples=prepared.examples,
            heldout_examples=prepared.heldout_examples,
            refused=int(after.result["refused"]),
            cores=os.cpu_count() or 1,
            load=os.getloadavg()[0],
        )


def targets(report: Report) -> list[Target]:
    """Return what must be reached; the time only counts for the full size."""
    full = report.share >= 1
    minutes = report.seconds / 60
    return [
        Target(
            what=f"{report.admissions:,} admissions and {report.notes:,} notes prepared, killed once",
            wanted=f"under {MOST_MINUTES:.0f} minutes",
            measured=f"{minutes:.1f} minutes",
            met=minutes < MOST_MINUTES if full else None,
        ),
        Target(
            what="memory of the preparation",
            wanted=f"under {MOST_MEMORY_MB:,.0f} MB",
            measured=f"{report.peak_memory_mb:,.0f} MB",
            met=report.peak_memory_mb < MOST_MEMORY_MB if full else None,
        ),
        Target(what="refused rows", wanted="0", measured=str(report.refused), met=report.refused == 0),
    ]


class _Prepare:
    """One preparation in a process of its own, which tells its stages."""

    def __init__(self, tables: Path, store: Path, on_progress: OnProgress) -> None:
        self._command = [sys.executable, "-m", "fedpriv.experiments.data_preparation", str(tables), str(store)]
        self._on_progress = on_progress
        self.seconds, self.peak_mb, self.cpu_s = 0.0, 0.0, 0.0
        self.result: dict[str, Any] = {}

    def run(self, *, kill_at: str = "") -> str:
        """Run to the end, or to SIGKILL in the middle of the stage with this word; return the last stage."""
        begun, stage = time.monotonic(), ""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as said,
            subprocess.Popen(self._command, stdout=said) as process,
        ):
            watched, read = psutil.Process(process.pid), 0
            while process.poll() is None:
                self._look(watched)
                events, read = _events(said, read)
                for event in events:
                    self.result = event if "digest" in event else self.result
                    stage, done = str(event.get("stage", stage)), float(event.get("done", 1.0))
                    self._on_progress(stage, done)
                    if kill_at and kill_at in stage and done >= 0.4:
                        process.send_signal(signal.SIGKILL)
                time.sleep(_LOOK_EVERY_S)
            for event in _events(said, read)[0]:
                self.result = event if "digest" in event else self.result
        self.seconds = time.monotonic() - begun
        if process.returncode not in (0, -signal.SIGKILL if kill_at else 0) or (not kill_at and not self.result):
            raise DataError(f"The preparation ended with {process.returncode}", todo="see what it wrote above")
        return stage

    def _look(self, watched: psutil.Process) -> None:
        try:
            family = [watched, *watched.children(recursive=True)]
            self.peak_mb = max(self.peak_mb, sum(p.memory_info().rss for p in family) / 2**20)
            times = watched.cpu_times()
            self.cpu_s = times.user + times.system
        except psutil.Error:
            return


def _events(said: TextIO, start: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines of a file after ``start``, parsed, and where the next one begins."""
    whole = os.pread(said.fileno(), 2**24, start).rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()], start + len(whole) + bool(whole)


def _read_with_csv(path: Path) -> tuple[float, int]:
    """Return the seconds in which ``csv.reader`` reads a csv.gz file, and how many rows it has."""
    csv.field_size_limit(2**24)
    begun = time.perf_counter()
    with gzip.open(path, "rb") as packed, io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
        rows = sum(1 for _ in csv.reader(text)) - 1
    return time.perf_counter() - begun, rows
