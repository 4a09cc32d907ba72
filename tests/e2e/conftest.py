"""Real processes of every party, started by their own commands; ended by their ids whatever happens."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.domain import Domain

COMMAND = [sys.executable, "-m", "fedpriv"]
DEMO_DATA = "shared/data/mimic-iii-demo"


def run(*arguments, cwd, code=0, seconds=400):
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def prepare(*arguments, cwd):
    """Do what a command does, in this process: for what comes before a test, which needs no process of its own."""
    from fedpriv.cli.main import app

    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def start():
    """Start a command in the background; end it (and what it started) at the end of the test."""
    running = []

    def begin(*arguments, cwd):
        log = (Path(cwd) / f"process-{len(running)}.log").open("wb")
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=cwd, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        running.append((process, log))
        return process

    yield begin
    for process, log in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def wait_for(condition, *, seconds, what):
    """Wait until ``condition()`` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def ledger(folder):
    """Return the entries of a domain's ledger."""
    path = folder / "state" / "ledger.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def fingerprint(printed):
    return next(line.split()[-1] for line in printed.stdout.splitlines() if line.startswith("Fingerprint:"))


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The tables of three domains, in a folder for each; tests and domains only read them."""
    cwd = tmp_path_factory.mktemp("shards")
    prepare("data", "synthesize", cwd / "tables", "--patients", "120", cwd=cwd)
    prepare("data", "shard", cwd / "tables", "--out", cwd / "shards", "--domains", "3", cwd=cwd)
    return cwd / "shards"


@pytest.fixture
def federation(tmp_path, start, shards):
    """Makes a researcher and three domains whose owners are asked; returns folders and a way to serve them."""

    def make(*, rounds, steps):
        return _federation(tmp_path, start, shards, rounds, steps)

    return make


def _federation(tmp_path, start, shards, rounds, steps):
    store = tmp_path / "store"
    ada = fingerprint(prepare("study", "init", "--email", "ada@y.org", "--store", store, cwd=tmp_path))
    domains = {}
    for shard in sorted(path.name for path in shards.iterdir()):
        printed = prepare(
            *("domain", "init", tmp_path / shard, "--email", f"{shard}@x.org", "--store", store),
            *("--data", shards / shard),
            cwd=tmp_path,
        )
        prepare("domain", "trust", tmp_path / shard, f"ada@y.org={ada}", cwd=tmp_path)
        domains[shard] = fingerprint(printed)
    new = ["study", "new", "icu", "--model", "tiny", "--rounds", rounds, "--steps", steps, "--protection", "sealed"]
    for shard, value in domains.items():
        new += ["--domain", f"{shard}@x.org={value}"]
    prepare(*new, cwd=tmp_path)
    serve = lambda shard: start("domain", "serve", tmp_path / shard, cwd=tmp_path)  # noqa: E731
    return tmp_path, list(domains), serve


def requests(root, shard):
    return json.loads(prepare("domain", "requests", root / shard, "--json", cwd=root).stdout)


def received(root, shard):
    """Wait for the request at a domain, and return it as `fedpriv domain requests` has it."""
    book = Domain.open(root / shard).requests  # looks here: a command for every look would slow down what it waits for
    wait_for(book.studies, seconds=120, what=f"the request at {shard}")
    (request,) = requests(root, shard)
    return request


def count(folder, kind):
    return sum(entry["kind"] == kind for entry in ledger(folder))
