"""Simulated studies lie in memory where there is such a folder: they write thousands of small files, each synced."""

import shutil
import tempfile
from pathlib import Path

import pytest

from fedpriv.experiments.simulation import SimulatedFederation, Trace

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a name of its own is made in it
TRAINING = {"rounds": 4, "steps": 10, "learning_rate": 0.05}


@pytest.fixture
def folder(tmp_path):
    path = Path(tempfile.mkdtemp(dir=MEMORY)) if MEMORY.is_dir() else tmp_path
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def federation(folder):
    """Make a federation of so many domains, or of traces, with sections of a plan; several in one test are apart."""
    made = []

    def make(traces=3, **sections):
        if isinstance(traces, int):
            traces = [Trace(examples=50 * (number + 1), step_s=1.0) for number in range(traces)]
        made.append(traces)
        plan = {"training": TRAINING} | sections
        return SimulatedFederation(folder / str(len(made)), traces, plan=plan)

    return make
