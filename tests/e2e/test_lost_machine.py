"""A domain's machine is lost in the middle of a study; another one goes on from the encrypted backup."""

import shutil
import signal

import pytest

from tests.e2e.conftest import count, received, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(900)]


def test_a_study_goes_on_from_a_backup_on_another_machine(federation, start, tmp_path):
    root, shards, serve = federation(rounds=2, steps=1)
    services = {shard: serve(shard) for shard in shards}
    run("study", "submit", "icu", cwd=root)
    assert "after round 1" in run("study", "step", "icu", cwd=root).stdout
    running = start("study", "run", "icu", cwd=root)
    for shard in shards:
        study = received(root, shard)["study"]
        run("domain", "approve", root / shard, study[:10], cwd=root)
    lost = shards[0]
    wait_for(lambda: count(root / lost, "update.confirmed") == 1, seconds=240, what="round 1")
    secret = tmp_path / "passphrase"
    secret.write_text("five quiet words nobody guesses\n")
    secret.chmod(0o600)
    option = ("--passphrase-file", secret)
    refused = run("domain", "backup", root / lost, tmp_path / "b", *option, cwd=root, code=2)
    assert "in use by process" in " ".join(refused.stderr.split())
    services[lost].send_signal(signal.SIGTERM)
    services[lost].wait(30)
    said = run("domain", "backup", root / lost, tmp_path / "b", *option, cwd=root).stdout
    assert "1 studies" in " ".join(said.split())

    shutil.rmtree(root / lost)
    new = tmp_path / "other-machine" / lost
    assert "by phone" in run("domain", "restore", tmp_path / "b", new, *option, cwd=root).stdout
    there = start("domain", "serve", new, cwd=root)
    run("study", "resume", "icu", cwd=root)
    assert running.wait(300) == 0
    assert count(new, "domain.restored") == 1
    for step in ("round.trained", "update.sealed", "update.confirmed", "aggregate.opened"):
        assert count(new, step) == 2, step  # one before the backup, one after it
    assert "The ledger is whole" in run("domain", "ledger", "verify", new, cwd=root).stdout
    there.send_signal(signal.SIGTERM)
    there.wait(30)

    # The backup is older than what the domain did since: it is no way back, here or elsewhere.
    refused = run("domain", "restore", tmp_path / "b", new, *option, cwd=root, code=3)
    assert "would forget what was spent, sealed and confirmed" in " ".join(refused.stderr.split())
    old = tmp_path / "yet-another" / lost
    run("domain", "restore", tmp_path / "b", old, *option, cwd=root)
    refused = run("domain", "serve", old, "--once", cwd=root, code=3)
    assert "the folder was set back to an older state" in " ".join(refused.stderr.split())
    assert "1 approvals were revoked" in run("domain", "accept-loss", old, cwd=root).stdout
    run("domain", "serve", old, "--once", cwd=root)
