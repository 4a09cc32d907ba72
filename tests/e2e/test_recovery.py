"""A domain disappears after the others have sealed; a malicious aggregator changes a sum: the study goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpriv.domain import Domain
from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training.adapter import adapter_digest, flatten, load_state, parse_state
from fedpriv.training.recipe import stock_recipe
from tests.e2e.conftest import ledger, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ROUNDS = 3


@pytest.fixture
def federation(tmp_path, request):
    """Three domains, or as many as the test says."""
    domains = getattr(request, "param", 3)
    with Federation.create(model="tiny", domains=domains, work=tmp_path / "work") as parties:
        yield parties


def submit(federation, *, steps, rounds=ROUNDS, rules=()):
    """Submit a study and return its folder; the domains' standing policy approves it."""
    plan = federation.plan(rounds=rounds, steps=steps)
    plan = plan.model_copy(update={"protection": ProtectionChoice(level="sealed", rules=rules)})
    study = Study.create(federation.researcher, "icu", plan, recipe=stock_recipe())
    study.submit()
    return study.folder


def home(federation):
    return ("--home", federation.researcher.root)


def entries(federation, name, kind):
    return [entry["facts"] for entry in ledger(federation.domains[name].folder.root) if entry["kind"] == kind]


def history(folder):
    return [json.loads(line) for line in folder.history_path.read_text().splitlines()]


def events(folder, name):
    return [record for record in history(folder) if record["event"] == name]


def study_folder(federation, name):
    return next((federation.domains[name].folder.state / "studies").iterdir())


def released(federation, cwd):
    run("study", "release", "icu", "--out", cwd / "adapter", *home(federation), cwd=cwd)
    return adapter_digest(parse_state((cwd / "adapter" / "adapter_model.safetensors").read_bytes()))


def mean_change(federation, names, number):
    """Return the weighted mean of what these domains trained in a round, from their own folders."""
    changes, weights = [], []
    for name in names:
        folder = study_folder(federation, name)
        before = load_state(folder / "adapters" / f"{number - 1:04d}.safetensors")
        output = folder / "workspace" / f"train-{number:04d}-{adapter_digest(before)[:16]}"
        changes.append(flatten(load_state(output / "adapter_after.safetensors")) - flatten(before))
        weights.append(next(e["weight"] for e in entries(federation, name, "update.sealed") if e["round"] == number))
    return np.average(np.array(changes, np.float64), axis=0, weights=weights)


def opened_change(federation, name, number):
    adapters = study_folder(federation, name) / "adapters"
    after, before = (flatten(load_state(adapters / f"{n:04d}.safetensors")) for n in (number, number - 1))
    return after - before


@pytest.mark.parametrize("federation", [4], indirect=True, ids=str)
def test_a_domain_disappears_after_the_others_have_sealed(federation, start, tmp_path):
    hybrid = (LevelRule(tensors=("*lora_A*",), level="masked", bits=8),)
    folder = submit(federation, steps=20, rules=hybrid)
    running = start("study", "run", "icu", *home(federation), cwd=tmp_path)
    gone = sorted(federation.domains)[-1]
    others = [name for name in federation.domains if name != gone]
    email = federation.domains[gone].config.email

    wait_for(lambda: len(entries(federation, gone, "round.started")) == 2, seconds=240, what="round 2 at the victim")
    federation._processes[gone].kill()
    federation._processes[gone].wait()
    for name in others:
        wait_for(lambda name=name: len(entries(federation, name, "update.sealed")) == 2, seconds=240, what="its update")
    assert len(entries(federation, gone, "update.sealed")) == 1
    done = run("study", "exclude", "icu", email, "--reason", "its power is off", *home(federation), cwd=tmp_path)
    assert "A running study goes on without it" in " ".join(done.stdout.split())
    assert running.wait(240) == 0

    # Three updates in rounds 2 and 3, and the adapter is what the survivors' ledgers say.
    digest = released(federation, tmp_path)
    survivors = sorted(federation.domains[name].config.email for name in others)
    for name in others:
        opened = entries(federation, name, "aggregate.opened")
        assert [len(entry["members"]) for entry in opened] == [4, 3, 3]
        assert [entry["members"] for entry in entries(federation, name, "update.sealed")][1] == sorted(
            domain.config.email for domain in federation.domains.values()
        )
        assert [entry["members"] for entry in entries(federation, name, "update.confirmed")][1:] == [survivors] * 2
        assert opened[-1]["adapter_sha256"] == digest
        book = Domain.open(federation.domains[name].folder.root).ledger
        assert book.verify() == len(book.entries())
    for number in (2, 3):
        wanted = mean_change(federation, others, number)
        error = opened_change(federation, others[0], number) - wanted
        assert np.linalg.norm(error) < 0.05 * np.linalg.norm(wanted)  # rounding to 8 and 10 bits

    # What people see.
    (shown,) = events(folder, "DomainExcluded")
    assert (shown["domain"], shown["reason"]) == (email, "its power is off")
    for record in events(folder, "RoundFinished"):
        assert sum(record["weights"].values()) == pytest.approx(1)
        assert (email in record["weights"]) == (record["round"] == 1)
        assert record["seconds"]["confirm"] > 0
    status = json.loads(run("study", "status", "icu", "--json", *home(federation), cwd=tmp_path).stdout)
    assert status["excluded"] == {email: "its power is off"}
    assert status["finished"]


@pytest.mark.nightly  # the first test here goes the same way through; orders of events: tests/experiments/simulation
def test_a_round_that_is_being_confirmed_waits_for_an_excluded_domain(federation, start, tmp_path):
    folder = submit(federation, steps=2, rounds=2)
    slow, gone, *_ = sorted(federation.domains, reverse=True)
    process = federation._processes[gone]
    email = federation.domains[gone].config.email

    def answered(name, kind):
        address = federation.domains[name].config.email
        return folder.history_path.exists() and any(
            (record["domain"], record["kind"]) == (address, kind) for record in events(folder, "ResultReceived")
        )

    # The slow one holds up the round until the other one, which has sealed, is stopped: it cannot confirm then.
    running = start("study", "run", "icu", *home(federation), cwd=tmp_path)
    wait_for(lambda: answered(slow, "prepare"), seconds=240, what="the slow domain")
    federation._processes[slow].send_signal(signal.SIGSTOP)
    wait_for(lambda: answered(gone, "train"), seconds=240, what="the update of the one that disappears")
    process.send_signal(signal.SIGSTOP)
    federation._processes[slow].send_signal(signal.SIGCONT)
    try:
        for name in set(federation.domains) - {gone}:
            wait_for(lambda name=name: entries(federation, name, "update.confirmed"), seconds=240, what="its answer")
        done = run("study", "exclude", "icu", email, *home(federation), cwd=tmp_path)
        assert f"Round 1 waits for {email} all the same" in " ".join(done.stdout.split())
        wait_for(lambda: events(folder, "DomainExcluded"), seconds=240, what="the researcher to see it")
        assert running.poll() is None
        assert not events(folder, "RoundFinished")
    finally:
        process.send_signal(signal.SIGCONT)
    assert running.wait(240) == 0
    assert [len(record["weights"]) for record in events(folder, "RoundFinished")] == [3, 2]
    assert any("cannot be summed without it" in record["what"] for record in events(folder, "Waiting"))
    assert not entries(federation, gone, "aggregate.opened")
    assert entries(federation, slow, "aggregate.opened")[-1]["adapter_sha256"] == released(federation, tmp_path)


def test_a_changed_sum_retires_the_key_and_the_study_goes_on_with_a_new_one(federation, tmp_path):
    folder = submit(federation, steps=4)
    victim = sorted(federation.domains)[1]
    email = federation.domains[victim].config.email
    script = Path(__file__).with_name("malicious_researcher.py")
    arguments = [sys.executable, str(script), str(federation.researcher.root), "icu", email, "2"]
    evil = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert evil.returncode == 4, evil.stderr
    said = " ".join(evil.stderr.split())
    assert f"{email} refused the sum of round 2 and retired the study's key" in said
    assert "The sum does not hold what its members sealed" in said
    assert "fedpriv study resume" in said

    # The key is kept as evidence and used no more; nothing was opened.
    (refused,) = entries(federation, victim, "aggregate.refused")
    assert refused["round"] == 2
    (retired,) = entries(federation, victim, "key.retired")
    keys = study_folder(federation, victim) / "keys"
    assert [path.name for path in keys.iterdir()] == ["retired-0001.key"]
    assert (keys / "retired-0001.key").stat().st_mode & 0o077 == 0
    assert len(entries(federation, victim, "aggregate.opened")) == 1
    trained = len(entries(federation, victim, "round.started"))
    assert trained == 2
    status = json.loads(run("study", "status", "icu", "--json", *home(federation), cwd=tmp_path).stdout)
    assert status["key"] == "generation 1, retired"
    assert status["finished_rounds"] == 1

    done = run("study", "resume", "icu", *home(federation), cwd=tmp_path)
    assert "a new study key was made; round 2 is summed again" in " ".join(done.stdout.split())
    digest = released(federation, tmp_path)
    for name in federation.domains:
        opened = [e for e in entries(federation, name, "aggregate.opened") if (e["round"], e["attempt"]) != (2, 1)]
        assert [(entry["round"], entry["attempt"]) for entry in opened] == [(1, 1), (2, 2), (3, 2)]
        assert opened[-1]["adapter_sha256"] == digest
        sealed = [(e["round"], e["attempt"]) for e in entries(federation, name, "update.sealed")]
        assert [entry for entry in sealed if entry[0] == 2] == [(2, 1), (2, 2)]
        assert {e["generation"] for e in entries(federation, name, "key.retired")} == {1}
        assert (
            sum(e["round"] == 2 for e in entries(federation, name, "round.started")) == 1
        )  # sealed again, not trained
        book = Domain.open(federation.domains[name].folder.root).ledger
        assert book.verify() == len(book.entries())
    assert retired["key_id"] not in {e["key_id"] for e in entries(federation, victim, "update.sealed")[-2:]}
    for number in (2, 3):
        wanted = mean_change(federation, federation.domains, number)
        error = opened_change(federation, victim, number) - wanted
        assert np.linalg.norm(error) < 0.05 * np.linalg.norm(wanted)
    (renewed,) = events(folder, "KeyRenewed")
    assert (renewed["generation"], renewed["round"], renewed["retired_by"]) == (2, 2, [email])
