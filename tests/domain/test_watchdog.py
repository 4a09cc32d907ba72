"""How much memory a job is seen to have, and what looking costs."""

import contextlib
import subprocess
import sys

import pytest

from fedpriv.domain import ResourcesChoice, watchdog
from fedpriv.domain.watchdog import Watchdog

SIZE = 200 * 10**6

FORKS = rf"""
import os, sys
held = bytearray(os.urandom(1)) * {SIZE}
if sys.argv[1:]:
    os.fork()
os.write(1, b"ready\n")
sys.stdin.read()
"""


@pytest.fixture
def watch(tmp_path):
    """Starts a process that holds 200 MB, alone or with a fork that shares them, and watches it."""
    with contextlib.ExitStack() as stack:

        def begin(memory_gb, *arguments):
            command = [sys.executable, "-c", FORKS, *arguments]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
            stack.callback(process.stdin.close)
            for _ in range(1 + len(arguments)):
                assert process.stdout.readline() == "ready\n"
            resources = ResourcesChoice(memory_gb=memory_gb)
            return Watchdog(pid=process.pid, folder=tmp_path, resources=resources, max_seconds=60, cpu_s=60)

        yield begin


@pytest.fixture
def walks(monkeypatch):
    """Counts how often the kernel had to walk through the pages of a process."""
    seen, exact = [], watchdog._memory
    monkeypatch.setattr(watchdog, "_memory", lambda process: seen.append(process.pid) or exact(process))
    return seen


def test_a_job_over_its_memory_is_named(watch):
    watched = watch(0.1)
    assert watched.breach() == "it used more than 0.1 GB of memory"
    assert SIZE < watched.peak_memory_bytes < 1.3 * SIZE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is shared cannot be divided")
def test_what_forks_share_counts_once_however_close_the_limit_is(watch, walks):
    watched = watch(0.3, "fork")
    assert watched.breach() is None
    assert SIZE < watched.peak_memory_bytes < 1.3 * SIZE
    assert watched.breach() is None
    assert len(walks) == 4  # counted twice it would be over the limit, so that each look has to be exact


def test_pages_are_walked_through_at_a_new_high_alone(watch, walks):
    watched = watch(8)
    for _ in range(5):
        assert watched.breach() is None
    assert len(walks) == 1
    assert SIZE < watched.peak_memory_bytes < 1.3 * SIZE
