"""Real processes over a real S3 server that is killed in a round, and over a folder that is set back in a round."""

import contextlib
import os
import shutil
import signal

import pytest

from fedpriv.errors import ConfigError
from fedpriv.experiments.crosscloud.s3_server import S3Server
from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.training.recipe import stock_recipe
from tests.e2e.conftest import is_alive, ledger, run, wait_for
from tests.e2e.test_absence import adapters, home, records

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROUNDS = 3


def submit(federation):
    plan = federation.plan(rounds=ROUNDS, steps=2, title="Over another store")
    study = Study.create(federation.researcher, "over", plan, recipe=stock_recipe())
    study.submit()
    return study


def copy_if_there(source, target):
    """Copy a file of a store that is in use, as a backup does: what goes meanwhile is not in it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def done_once_everywhere(federation, study):
    assert len(records(study, "RoundFinished")) == ROUNDS
    assert len(adapters(federation, study, ROUNDS)) == 1
    for domain in federation.domains.values():
        for kind in ("round.trained", "update.confirmed", "aggregate.opened"):
            found = [entry["facts"]["round"] for entry in ledger(domain.folder.root) if entry["kind"] == kind]
            assert found == list(range(1, ROUNDS + 1)), (kind, found)


@pytest.fixture
def s3(tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason='there is no client: pip install "fedpriv[s3]"')
    server = S3Server(folder=tmp_path / "s3", users=())
    try:
        server.start()
    except ConfigError as error:
        pytest.skip(str(error))
    for name, value in server.credentials().items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def test_a_study_over_s3_goes_on_when_the_server_is_killed_in_a_round_and_started_again(s3, start, tmp_path):
    with Federation.create(model="tiny", domains=3, work=tmp_path / "work", store=s3.url) as federation:
        study = submit(federation)
        running = start("study", "run", "over", *home(federation), cwd=tmp_path)
        wait_for(lambda: records(study, "RoundFinished"), seconds=200, what="a round")
        s3.stop()
        s3.start()
        assert running.wait(300) == 0
        done_once_everywhere(federation, study)


def test_a_study_over_a_store_that_is_set_back_in_a_round_ends_with_the_same_adapter_everywhere(start, tmp_path):
    store, older = tmp_path / "store", tmp_path / "older"
    with Federation.create(model="tiny", domains=3, work=tmp_path / "work", store=str(store)) as federation:
        study = submit(federation)
        running = start("study", "run", "over", *home(federation), cwd=tmp_path)
        wait_for(lambda: records(study, "RoundStarted"), seconds=200, what="a round to begin")
        shutil.copytree(store, older, ignore=shutil.ignore_patterns(".part-*"), copy_function=copy_if_there)
        wait_for(lambda: records(study, "RoundFinished"), seconds=200, what="a round to end")
        store.rename(tmp_path / "lost")
        older.rename(store)
        assert running.wait(400) == 0, "nobody has to do anything"
        done_once_everywhere(federation, study)


@pytest.mark.nightly
def test_a_study_moves_to_another_store_in_a_round(start, tmp_path):
    store, other = tmp_path / "store", tmp_path / "other"
    with Federation.create(model="tiny", domains=3, work=tmp_path / "work", store=str(store)) as federation:
        study = submit(federation)
        running = start("study", "run", "over", *home(federation), cwd=tmp_path)
        wait_for(lambda: len(records(study, "RoundStarted")) == 2, seconds=200, what="the second round")
        running.send_signal(signal.SIGINT)
        running.wait(60)
        for name in federation.domains:
            os.kill(federation.serve_pid(name), signal.SIGTERM)
        wait_for(lambda: not any(map(is_alive, map(federation.serve_pid, federation.domains))), seconds=60, what="ends")
        settings = [domain.folder.config_path for domain in federation.domains.values()]
        for path in [*settings, federation.researcher.root / "researcher.yaml"]:
            path.write_text(path.read_text().replace(str(store), str(other)))
            assert str(other) in path.read_text()
        store.rename(tmp_path / "lost")
        for name in federation.domains:
            federation.serve(name)
        run("study", "resume", "over", *home(federation), cwd=tmp_path)
        done_once_everywhere(federation, study)
        assert not store.exists()
