from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedpriv.errors import GatekeeperError, ProtectionError
from fedpriv.files import file_sha256
from fedpriv.protection.parallel import ordered_map, useful_workers
from tests.protection.helpers import Cohort, CreatedMemory, Squares, make_cohort

TENSORS = {"a": 150_000, "b": 170_000}


def squares(numbers, *, workers: int, factor: int = 1) -> tuple[list[int], set[int]]:
    make = functools.partial(Squares, os.getpid(), factor)
    found = list(ordered_map(make, ((number,) for number in numbers), number=len(numbers), workers=workers))
    return [square for square, _ in found], {pid for _, pid in found}


@pytest.fixture
def masked(tmp_path) -> Cohort:
    return make_cohort(tmp_path, "masked", clients=2, bits=6, tensors=TENSORS)


def worker_processes() -> list[psutil.Process]:
    """Return the children of our fork server."""
    return [child for child in psutil.Process().children(recursive=True) if child.ppid() != os.getpid()]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_from_all_processes(workers):
    found, processes = squares(range(500), workers=workers)
    assert found == [number**2 for number in range(500)]
    assert os.getpid() in processes
    assert len(processes) <= workers
    assert squares([], workers=workers) == ([], set())


def test_workers_really_work():
    _, processes = squares([0] * 2000, workers=2)
    assert len(processes) == 2


def test_the_same_work_is_made_anew_for_each_map():
    """A worker that kept what it made for the last map would use its factor, its files and its memory."""
    for factor in (1, 2, 3):
        assert squares(range(300), workers=2, factor=factor)[0] == [factor * number**2 for number in range(300)]


def test_tasks_are_taken_as_they_are_needed():
    taken = 0

    def tasks():
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield (number,)

    results = ordered_map(functools.partial(Squares, os.getpid()), tasks(), number=10_000, workers=3)
    for _ in range(5):
        next(results)
    assert taken < 100
    results.close()


def test_a_killed_worker_is_an_error_that_says_what_to_do_and_the_next_call_works():
    with pytest.raises(ProtectionError, match=r"worker process was killed.*try again"):
        squares([1, 2, *[-1] * 40, 3], workers=3)
    assert squares(range(100), workers=3)[0] == [number**2 for number in range(100)]


def test_sealing_and_opening_do_not_depend_on_the_number_of_workers(masked, monkeypatch):
    memory = CreatedMemory(monkeypatch)
    rng = np.random.default_rng(1)
    updates = {member: rng.normal(0, 0.02, masked.size).astype(np.float32) for member in masked.members}
    digests, parts = {}, {}
    for workers in (1, 3, 3, 2):  # twice the same: nothing of the first call may be left in a worker
        for member, update in updates.items():
            part = masked.seal(member, update, workers=workers)
            facts = (part.signed.container_sha256, file_sha256(part.path), part.residual.tobytes(), part.clipped)
            assert digests.setdefault(member, facts) == facts
            parts[member] = part
    path, digest = masked.add(list(parts.values()))
    manifest = masked.manifest(list(parts.values()), digest)
    opened = [masked.open(path, manifest, workers=workers) for workers in (1, 3, 3, 2)]
    for other in opened[1:]:
        np.testing.assert_array_equal(opened[0].sum, other.sum)
        assert opened[0].next_scales == other.next_scales
    np.testing.assert_allclose(opened[0].sum, sum(part.sent for part in parts.values()), atol=1e-7)
    assert len(memory) == 9
    assert memory.is_gone


def test_sealing_after_a_worker_was_killed_publishes_nothing_and_the_next_call_works(masked, monkeypatch):
    squares([0] * 500, workers=2)
    memory = CreatedMemory(monkeypatch)
    workers = worker_processes()
    assert workers
    for worker in workers:
        worker.kill()
    update = np.full(masked.size, 0.01, np.float32)
    with pytest.raises(ProtectionError, match="worker process was killed"):
        masked.seal(masked.members[0], update, workers=2)
    assert list(masked.folder.iterdir()) == []
    assert memory.is_gone
    part = masked.seal(masked.members[0], update, workers=2)
    assert file_sha256(part.path) == part.signed.container_sha256
    assert memory.is_gone


def test_a_worker_forgets_what_it_worked_with(masked):
    """Memory goes back to the system only when nobody has it open any more."""
    masked.seal(masked.members[0], np.full(masked.size, 0.01, np.float32), workers=2)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(vectors_of, worker_processes())):
        time.sleep(0.02)
    assert worker_processes()
    assert not any(map(vectors_of, worker_processes()))


def vectors_of(process: psutil.Process) -> list[str]:
    """Return the memory for vectors that a process has open."""
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(link.readlink()))
    return [name for name in found if "fedpriv-vector" in name]


def test_a_kill_of_the_process_that_seals_leaves_no_worker_and_no_memory(tmp_path):
    script = Path(__file__).with_name("sealing_process.py")
    process = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "sealing\n"
    party, deadline = psutil.Process(process.pid), time.monotonic() + 30
    while len(workers := party.children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)  # resource tracker, fork server, worker
    assert len(workers) == 3
    assert vectors_of(party)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_an_error_in_the_middle_gives_back_memory_and_files(masked, monkeypatch):
    memory = CreatedMemory(monkeypatch)
    update = np.full(masked.size, 0.01, np.float32)
    update[-3] = np.nan
    with pytest.raises(GatekeeperError, match="not finite"):
        masked.seal(masked.members[0], update, workers=3)
    assert list(masked.folder.iterdir()) == []
    assert memory.is_gone


@pytest.mark.parametrize(("limit", "size", "expected"), [(4, 10, 1), (4, 2_500_000, 2), (4, 10**9, 4), (1, 10**9, 1)])
def test_small_updates_are_not_worth_a_worker(limit, size, expected):
    assert useful_workers(limit, size) == expected
