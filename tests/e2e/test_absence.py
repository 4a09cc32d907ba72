"""Real processes: a domain is gone for three rounds and comes back; steering from another process; buffers; weights."""

import json
import os
import signal

import pytest

from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.schedule import ScheduleChoice
from fedpriv.training.recipe import stock_recipe
from tests.e2e.conftest import is_alive, ledger, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation.create(model="tiny", domains=3, work=tmp_path_factory.mktemp("absence") / "work") as parties:
        yield parties


def submit(federation, name, *, rounds, steps=2, **sections):
    plan = federation.plan(rounds=rounds, steps=steps, title=f"Absence: {name}").model_copy(update=sections)
    study = Study.create(federation.researcher, name, plan, recipe=stock_recipe())
    study.submit()
    return study


def home(federation):
    return ("--home", federation.researcher.root)


def records(study, event):
    path = study.folder.history_path
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for line in lines if (record := json.loads(line))["event"] == event]


def facts(federation, name, kind, study):
    id_ = study.folder.submitted().study
    entries = ledger(federation.domains[name].folder.root)
    return [e["facts"] for e in entries if e["kind"] == kind and e["facts"].get("study") == id_]


def adapters(federation, study, last):
    """Return the digest of the last adapter that each domain opened."""
    opened = [facts(federation, name, "aggregate.opened", study) for name in federation.domains]
    return {next(f["adapter_sha256"] for f in each if f["round"] == last) for each in opened}


def test_a_domain_that_is_gone_for_three_rounds_catches_up_and_takes_part_again(federation, start, tmp_path):
    rounds = 9
    schedule = ScheduleChoice(quorum=2, patience_s=20)
    study = submit(federation, "gone", rounds=rounds, schedule=schedule)
    gone = sorted(federation.domains)[2]
    email = federation.domains[gone].config.email
    study.pause()
    running = start("study", "run", "gone", *home(federation), cwd=tmp_path)
    # With a quorum rounds begin without who is still getting ready; here all three are to be in the first.
    wait_for(lambda: len(records(study, "DomainJoined")) == 3, seconds=200, what="all domains")
    study.step(2)
    wait_for(lambda: len(records(study, "RoundFinished")) == 2, seconds=200, what="two rounds")
    os.kill(federation.serve_pid(gone), signal.SIGTERM)
    wait_for(lambda: not is_alive(federation.serve_pid(gone)), seconds=60, what="its service to end")
    run("study", "step", "gone", "--rounds", "3", *home(federation), cwd=tmp_path)
    wait_for(lambda: len(records(study, "RoundFinished")) == 5, seconds=300, what="three rounds without it")
    federation.serve(gone)  # also for the tests after this one
    assert not {3, 4, 5} & {r["round"] for r in records(study, "RoundFinished") if email in r["weights"]}
    assert email in {r["domain"] for r in records(study, "DomainMissed")}
    wait_for(lambda: facts(federation, gone, "round.trained", study)[2:], seconds=200, what="it to train again")
    status = json.loads(run("study", "status", "gone", "--json", *home(federation), cwd=tmp_path).stdout)
    assert status["paused_after"] == 5
    assert status["running"]
    printed = run("study", "resume", "gone", *home(federation), cwd=tmp_path).stdout
    assert "goes on in the process that runs it" in " ".join(printed.split())
    assert running.wait(400) == 0
    assert len(records(study, "RoundFinished")) == rounds
    assert email in records(study, "RoundFinished")[-1]["weights"]
    assert [f["round"] for f in facts(federation, gone, "aggregate.opened", study)] == list(range(1, rounds + 1))
    assert len(adapters(federation, study, rounds)) == 1
    sealed = facts(federation, gone, "update.sealed", study)
    assert any(f.get("carried") for f in sealed)  # what it trained for a round that was over came with its next one


@pytest.mark.nightly
def test_a_buffered_study_of_real_processes_ends_with_one_adapter(federation, start, tmp_path):
    rounds = 5
    study = submit(federation, "buffered", rounds=rounds, schedule=ScheduleChoice(mode="buffered", buffer=2))
    running = start("study", "run", "buffered", *home(federation), cwd=tmp_path)
    wait_for(lambda: records(study, "RoundFinished"), seconds=200, what="a buffer")
    run("study", "stop", "buffered", *home(federation), cwd=tmp_path)
    assert running.wait(120) == 4
    run("study", "resume", "buffered", *home(federation), cwd=tmp_path)
    finished = records(study, "RoundFinished")
    assert [record["round"] for record in finished] == list(range(1, rounds + 1))
    assert all(len(record["weights"]) == 2 for record in finished)
    assert len(adapters(federation, study, rounds)) == 1
    for name in federation.domains:
        sealed = facts(federation, name, "update.sealed", study)
        assert all(len(f["members"]) == 2 for f in sealed)
        trained = [f["round"] for f in facts(federation, name, "round.trained", study)]
        assert len(trained) == len(set(trained))


@pytest.mark.nightly
def test_weights_of_losses_and_links_in_real_processes(federation, start, tmp_path):
    aggregation = AggregationChoice(weights="paper", alpha=0.5)
    study = submit(federation, "paper", rounds=2, aggregation=aggregation)
    run("study", "run", "paper", *home(federation), cwd=tmp_path)
    weighed = records(study, "Weighed")
    assert [record["rule"] for record in weighed] == ["paper", "paper"]
    assert all(abs(sum(record["shares"].values()) - 1) < 1e-9 for record in weighed)
    assert weighed[1]["bandwidths"].keys() == {d.config.email for d in federation.domains.values()}
    assert len(adapters(federation, study, 2)) == 1
    shown = " ".join(run("study", "status", "paper", *home(federation), cwd=tmp_path).stdout.split())
    assert "Mbit/s up" in shown
