"""A study with differential privacy by hand, in real processes, with a domain killed while it trains."""

import json
import signal

import pytest

from tests.e2e.conftest import ledger, run, wait_for
from tests.e2e.test_kill import count, federation, requests  # noqa: F401 - a fixture is found by its name

pytestmark = pytest.mark.e2e
ROUNDS, STEPS, EPSILON = 3, 8, 8.0


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


def test_a_private_study_survives_a_kill_and_is_charged_once(federation, start):  # noqa: F811
    root, shards, serve = federation
    make_private(root)
    for shard in shards:
        set_budget(root, shard, 9.0)
    services = {shard: serve(shard) for shard in shards}
    run("study", "submit", "icu", cwd=root)
    running = start("study", "run", "icu", cwd=root)
    for shard in shards:
        (request,) = wait_for(lambda shard=shard: requests(root, shard), seconds=60, what=f"the request at {shard}")
        shown = " ".join(run("domain", "show", root / shard, request["study"][:10], cwd=root).stdout.split())
        assert "differential privacy for a single patient with epsilon 8" in shown
        assert "these numbers: heldout_loss" in shown
        run("domain", "approve", root / shard, request["study"][:10], cwd=root)

    victim = shards[0]
    wait_for(lambda: count(root / victim, "epsilon.charged") == 2, seconds=120, what="the charge of round 2")
    services[victim].send_signal(signal.SIGKILL)
    services[victim].wait(10)
    services[victim] = serve(victim)
    assert running.wait(240) == 0

    for shard in shards:
        run("domain", "ledger", "verify", root / shard, cwd=root)
        kinds = [entry["kind"] for entry in ledger(root / shard)]
        assert kinds.count("epsilon.charged") == ROUNDS
        assert kinds.index("epsilon.charged") < kinds.index("round.started")
        spent = budget(root, shard)
        assert 7.9 < spent["spent"] <= EPSILON
        assert [(s["unit"], s["rounds"]) for s in spent["studies"]] == [("patient", ROUNDS)]
        assert spent["left"] == pytest.approx(9.0 - spent["spent"])
    history = (root / ".fedpriv/researcher/studies/icu/history.jsonl").read_text()
    rounds = [r for r in map(json.loads, history.splitlines()) if r["event"] == "RoundFinished"]
    assert [record["train_loss"] for record in rounds] == [None] * ROUNDS
    text = run("domain", "budget", root / victim, cwd=root).stdout
    assert "Budget: 9; left" in " ".join(text.split())


def test_the_demo_says_what_was_spent_and_what_is_not_covered(tmp_path):
    done = run(*("demo", "--model", "tiny", "--epsilon", 4, "--domains", 2, "--rounds", 1, "--json"), cwd=tmp_path)
    summary = json.loads(done.stdout)
    assert set(summary["privacy"]) == {"micu", "sicu"}
    for facts in summary["privacy"].values():
        assert 3.95 < facts["epsilon_study"] <= 4
        assert facts["delta"] == 1 / facts["patients"]
    page = (tmp_path / "fedpriv-demo" / "report.html").read_text()
    assert "Epsilon spent" in page
    assert "Not covered by epsilon" in page
