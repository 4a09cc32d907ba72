"""A data owner changes their mind in the middle of a round, and lets the model run at night only."""

import json
import time

import pytest

from fedpriv.domain import Domain
from tests.e2e.conftest import count, ledger, prepare, received, requests, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def entry(folder, kind):
    return next((entry for entry in ledger(folder) if entry["kind"] == kind), None)


def submitted(root, shards, serve, start):
    """Serve all domains, submit the study, start it, and return its id and the running process."""
    for shard in shards:
        serve(shard)
    run("study", "submit", "icu", cwd=root)
    running = start("study", "run", "icu", cwd=root)
    for shard in shards:
        request = received(root, shard)
    return request["study"], running


def test_a_withdrawn_approval_stops_a_round_that_is_running(federation, start):
    root, shards, serve = federation(rounds=1, steps=1000)
    study, running = submitted(root, shards, serve, start)
    for shard in shards:
        prepare("domain", "approve", root / shard, study[:10], cwd=root)
    mine = root / shards[0]
    wait_for(lambda: count(mine, "round.started"), seconds=120, what="training")
    time.sleep(1.0)
    said = run("domain", "revoke", mine, study[:10], "--reason", "the ethics board called", cwd=root)
    assert "Nothing further is run or sent" in said.stdout
    wait_for(lambda: count(mine, "ticket.refused"), seconds=120, what="the end of the training")
    revoked, stopped = entry(mine, "request.revoked"), entry(mine, "round.stopped")
    assert 0 <= stopped["time_s"] - revoked["time_s"] < 60, "a thousand steps take longer"
    assert count(mine, "round.trained") == 0
    assert "ethics board" in stopped["facts"]["reason"]
    assert count(mine, "update.sealed") == 0
    assert "Nothing" not in run("domain", "status", mine, cwd=root).stdout
    decided = requests(root, shards[0])
    assert [request["decision"] for request in decided] == ["revoked"]
    for shard in shards[1:]:
        run("domain", "revoke", root / shard, study[:10], cwd=root)
    assert running.wait(180) == 4
    printed = " ".join((root / "process-3.log").read_text().split())
    assert "the data owner withdrew the approval: the ethics board called" in printed.lower()
    assert "The ledger is whole" in run("domain", "ledger", "verify", mine, cwd=root).stdout


def test_outside_the_approved_hours_tickets_wait_and_say_so(federation, start):
    root, shards, serve = federation(rounds=1, steps=1)
    study, running = submitted(root, shards, serve, start)
    clock = lambda minutes: time.strftime("%H:%M", time.localtime(time.time() + 60 * minutes))  # noqa: E731
    closed = f"{clock(120)}-{clock(180)}"
    for shard in shards:
        prepare("domain", "approve", root / shard, study[:10], "--hours", closed, cwd=root)
    first = root / shards[0]
    domain = Domain.open(first)
    wait_for(lambda: "approved hours" in domain.status()["state"], seconds=120, what="waiting")
    assert closed in json.loads(run("domain", "status", first, "--json", cwd=root).stdout)["state"]
    assert count(first, "round.started") == 0
    open_now = f"{clock(-60)}-{clock(60)}"
    for shard in shards:
        prepare("domain", "approve", root / shard, study[:10], "--hours", open_now, cwd=root)
    assert running.wait(180) == 0
    assert count(first, "round.trained") == 1
