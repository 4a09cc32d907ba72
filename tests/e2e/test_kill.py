"""The same steps by hand, each its own command; a domain and the researcher are killed in the middle of rounds."""

import importlib.util
import json
import signal

import pytest

from fedpriv.domain import Domain
from tests.e2e.conftest import count, is_alive, ledger, received, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ROUNDS = 3


def waits_for(root, shard, what):
    domain = Domain.open(root / shard)
    wait_for(
        lambda: any(what in wait["what"] for wait in domain.status()["waiting"]), seconds=120, what=f"{what} at {shard}"
    )


def drawn_once(root):
    """Neither a round twice nor a second run, although the run was killed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (root / ".fedpriv/researcher/trackers/tensorboard").iterdir()
    drawn = EventAccumulator(str(folder)).Reload()
    assert [point.step for point in drawn.Scalars("loss/heldout")] == [1, 2, 3, 4]
    assert [point.step for point in drawn.Scalars("loss/train")] == [1, 2, 3]


def test_by_hand_with_a_domain_and_the_researcher_killed(federation, start):
    report_to = ("--report-to", "tensorboard") if importlib.util.find_spec("tensorboard") else ()
    root, shards, serve = federation(rounds=ROUNDS, steps=8)
    services = {shard: serve(shard) for shard in shards}
    run("study", "submit", "icu", cwd=root)
    twice = run("study", "submit", "icu", cwd=root, code=2)
    assert "was submitted already" in twice.stderr

    # Each data owner reads and decides; nothing runs before that.
    running = start("study", "run", "icu", *report_to, cwd=root)
    for shard in shards:
        request = received(root, shard)
        assert request["decision"] == "pending"
        shown = run("domain", "show", root / shard, request["study"][:10], "--files", cwd=root).stdout
        assert "unchanged stock recipe" in shown
        assert "def train" in shown
        assert count(root / shard, "round.started") == 0
        run("domain", "approve", root / shard, request["study"][:10], cwd=root)

    # A domain is killed while it trains, and started again: its worker goes with it.
    victim = shards[0]
    wait_for(lambda: count(root / victim, "round.started") == 2, seconds=240, what="round 2 at the victim")
    services[victim].send_signal(signal.SIGKILL)
    services[victim].wait(10)
    services[victim] = serve(victim)

    # The researcher is killed in round 3; a plain run refuses, resume goes on.
    wait_for(lambda: count(root / shards[1], "round.started") == 3, seconds=240, what="round 3")
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    refused = run("study", "run", "icu", cwd=root, code=2)
    assert "study resume" in refused.stderr
    done = run("study", "resume", "icu", *report_to, cwd=root)
    assert "Held-out loss" in done.stdout
    if report_to:
        drawn_once(root)
    told = run("study", "events", "icu", cwd=root).stdout
    assert f"{shards[0]}@x.org  approved" in told
    assert told.count("held-out loss") == 1

    # The release is a question of its own: it waits for every data owner, and one withholds at first.
    study = request["study"][:10]
    asking = start("study", "release", "icu", "--out", root / "adapter", cwd=root)
    for number, shard in enumerate(shards):
        waits_for(root, shard, "release or withhold")
        if number == 0:
            run("domain", "withhold", root / shard, study, "--reason", "after the holidays", cwd=root)
        else:
            run("domain", "release", root / shard, study, cwd=root)
    assert asking.wait(180) == 4
    assert not (root / "adapter").exists()
    assert all(count(root / shard, "adapter.released") == 0 for shard in shards), "a quorum of all was not reached"
    run("domain", "release", root / shards[0], study, cwd=root)
    run("study", "release", "icu", "--out", root / "adapter", cwd=root)
    assert (root / "adapter" / "adapter_config.json").exists()
    card = (root / "adapter" / "README.md").read_text()
    assert all(f"{shard}@x.org | 3 of 3" in card for shard in shards)
    assert "after the holidays" not in card
    assert all(count(root / shard, "adapter.released") == 1 for shard in shards)

    for shard in shards:
        whole = run("domain", "ledger", "verify", root / shard, cwd=root)
        assert "The ledger is whole" in whole.stdout
        once = [entry["once"] for entry in ledger(root / shard) if entry["once"]]
        assert len(once) == len(set(once))
        for kind in ("round.started", "round.trained", "update.sealed", "aggregate.opened"):
            assert count(root / shard, kind) == ROUNDS, (shard, kind)
        status = json.loads(run("domain", "status", root / shard, "--json", cwd=root).stdout)
        assert status["running"]
    assert count(root / victim, "round.resumed") <= 1
    state = json.loads(run("study", "status", "icu", "--json", cwd=root).stdout)
    assert state["finished"]
    assert state["finished_rounds"] == ROUNDS

    # A second service on the same domain is refused by name; editing the plan afterwards too.
    held = run("domain", "serve", root / victim, "--once", cwd=root, code=2)
    assert f"in use by process {services[victim].pid}" in " ".join(held.stderr.split())
    plan = root / ".fedpriv/researcher/studies/icu/plan.yaml"
    plan.write_text(plan.read_text().replace("rounds: 3", "rounds: 4"))
    changed = run("study", "run", "icu", cwd=root, code=2)
    assert "changed after the request was submitted" in " ".join(changed.stderr.split())


def test_ctrl_c_ends_every_process_of_the_demo(tmp_path, start):
    demo = start("demo", "--model", "tiny", cwd=tmp_path)
    folders = tmp_path / ".fedpriv/demo/domains"
    pids = wait_for(
        lambda: (
            [json.loads(p.read_bytes())["pid"] for p in folders.glob("*/state/status.json")][2:]
            and [json.loads(p.read_bytes())["pid"] for p in folders.glob("*/state/status.json")]
        ),
        seconds=180,
        what="three domain processes",
    )
    assert len(pids) == 3
    demo.send_signal(signal.SIGINT)
    assert demo.wait(120) == 130
    wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=120, what="the end of the domains")


def test_domains_end_when_the_demo_is_killed(tmp_path, start):
    demo = start("demo", "--model", "tiny", cwd=tmp_path)
    folders = tmp_path / ".fedpriv/demo/domains"
    wait_for(lambda: len(list(folders.glob("*/state/status.json"))) == 3, seconds=180, what="three domain processes")
    pids = [json.loads(p.read_bytes())["pid"] for p in folders.glob("*/state/status.json")]
    demo.send_signal(signal.SIGKILL)
    demo.wait(10)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=120, what="the end of the domains")
