"""A study with differential privacy in real processes, whose first domain is killed at every step of its tickets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import count, ledger, received, run, wait_for

pytestmark = pytest.mark.e2e
EPSILON = 8.0
EVERY = int(os.environ.get("FEDPRIV_DIE_EVERY", "12"))
"""At each how manyth of about 100 steps the domain is killed; 1 is at all of them, and takes seven minutes."""


def make_private(root):
    """Add a privacy section to the draft, as its researcher would."""
    path = root / ".fedpriv/researcher/studies/icu/plan.yaml"
    text = path.read_text()
    assert "privacy: null\n" in text
    path.write_text(text.replace("privacy: null\n", f"privacy:\n  epsilon: {EPSILON}\n  notes_per_patient: 2\n"))


def set_budget(root, shard, epsilon):
    path = root / shard / "domain.yaml"
    text = path.read_text()
    assert "  epsilon: null\n" in text
    path.write_text(text.replace("  epsilon: null\n", f"  epsilon: {epsilon}\n"))


def budget(root, shard):
    return json.loads(run("domain", "budget", root / shard, "--json", cwd=root).stdout)


def serve_dying(root, shard, running):
    """Serve a domain that kills itself, again and again, until the study is over; return how often it died."""
    launcher, deaths, seen = Path(__file__).with_name("dying_service.py"), 0, root / "seen"
    with (root / "dying.log").open("ab") as log:
        while running.poll() is None:
            process = subprocess.Popen(
                [sys.executable, str(launcher), str(root / shard), str(seen), str(EVERY)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None and running.poll() is None:
                    wait_for(lambda p=process: p.poll() is not None or running.poll() is not None, seconds=120, what="")
            finally:
                process.terminate()
                process.wait(30)
            deaths += process.returncode == -9
    return deaths, seen.read_text().splitlines()


@pytest.mark.nightly  # minutes; test_privacy_budget.py kills charges at any moment, test_kill.py real processes
@pytest.mark.timeout(900)
def test_a_private_study_survives_kills_everywhere_and_is_charged_once(federation, start):
    root, shards, serve = federation(rounds=2, steps=4)
    make_private(root)
    victim = shards[0]
    for shard in shards:
        set_budget(root, shard, 9.0)
    services = {shard: serve(shard) for shard in shards}
    run("study", "submit", "icu", cwd=root)
    running = start("study", "run", "icu", cwd=root)
    for shard in shards:
        request = received(root, shard)
        shown = json.loads(run("domain", "show", root / shard, request["study"][:10], "--json", cwd=root).stdout)
        summary = {sentence["topic"]: sentence["text"] for sentence in shown["summary"]}
        assert "privacy for a single patient with epsilon 8" in summary["privacy"]
        assert "of a budget of 9" in summary["privacy"]
        assert "train_loss" not in summary["numbers"]
    services[victim].terminate()
    services[victim].wait(30)
    for shard in shards:
        run("domain", "approve", root / shard, request["study"][:10], cwd=root)
    deaths, steps = serve_dying(root, victim, running)
    assert running.wait(120) == 0
    assert len(steps) >= 90, steps
    assert deaths == len(steps) // EVERY
    assert {step.split(":")[0] for step in steps} >= {"prepare", "train", "confirm", "finish"}

    for shard in shards:
        assert "The ledger is whole" in run("domain", "ledger", "verify", root / shard, cwd=root).stdout
        once = [entry["once"] for entry in ledger(root / shard) if entry["once"]]
        assert len(once) == len(set(once))
        for kind in ("epsilon.charged", "round.trained", "update.sealed", "update.confirmed", "aggregate.opened"):
            assert count(root / shard, kind) == 2, (shard, kind)
        found = budget(root, shard)
        assert found["spent"] == pytest.approx(found["studies"][0]["epsilon"])
        assert 0 < found["spent"] <= EPSILON
    digests = {
        entry["facts"]["adapter_sha256"]
        for shard in shards
        for entry in ledger(root / shard)
        if entry["kind"] == "aggregate.opened" and entry["facts"]["round"] == 2
    }
    assert len(digests) == 1
