"""MLflow's own client says what is kept, in a database and in a folder."""

import importlib.util
import shutil
import socket

import pytest

from fedpriv.researcher.trackers import mlflow_sink
from fedpriv.researcher.trackers.mlflow_sink import MlflowSink
from fedpriv.researcher.trackers.rows import MARK
from tests.researcher.trackers.conftest import Story

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database as the sink makes it where there is none: that takes seconds."""
    story = Story(tmp_path_factory.mktemp("database"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_sink._connect(story.run).search_experiments()
    return story.folder / "mlflow"


@pytest.fixture(params=["database", "folder"])
def store(request, story, monkeypatch, database):
    """Where the run is: the database that is used by default, or a folder that MLFLOW_TRACKING_URI names."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if request.param == "database":
        shutil.copytree(database, story.folder / "mlflow")
        return f"sqlite:///{story.folder / 'mlflow' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (story.folder / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def kept(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fedpriv")
    (run,) = client.search_runs([experiment.experiment_id])
    history = {n: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, n)] for n in run.data.metrics}
    return run, history


def test_a_study_is_one_run_however_often_it_is_resumed(story, store):
    for number in (1, 2):
        story.start(resumed=number > 1)
        story.round(number)
        assert story.track(MlflowSink()) == []
        run, history = kept(store)
        assert run.info.status == "KILLED"
    story.round(3)
    story.finish()
    for _ in range(2):
        assert story.track(MlflowSink()) == []
    run, history = kept(store)
    assert history[MARK] == [(1, 3.0), (2, 1.5), (3, 1.0), (4, 0.5)]
    assert history["domain/micu/seconds/train"] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert history["final/loss_after"] == [(4, 0.5)]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "icu"
    assert run.data.params == {name: str(value) for name, value in story.run.parameters.items()}
    assert set(run.data.tags) == {"fedpriv.study", "mlflow.runName"}  # no user, program, commit


def test_a_round_summed_again_counts_last(story, store):
    story.round(1)
    story.track(MlflowSink())
    story.summed(1, attempt=2)
    assert story.track(MlflowSink()) == []
    run, history = kept(store)
    assert history["attempt"] == [(1, 1.0), (1, 2.0)]
    assert run.data.metrics["attempt"] == 2.0


def test_more_than_one_request_holds_is_sent_in_several(story, store, monkeypatch):
    monkeypatch.setattr(mlflow_sink, "_MOST_METRICS", 3)
    monkeypatch.setattr(mlflow_sink, "_MOST_PARAMETERS", 1)
    story.round(1)
    assert story.track(MlflowSink()) == []
    run, history = kept(store)
    assert len(history) == 16
    assert len(run.data.params) == 4


def test_a_server_that_is_away_is_told_and_no_more(story, monkeypatch):
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:secret@127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        story.round(1)
        (event,) = story.track(MlflowSink(), "mlflow")
    assert "127.0.0.1" in event.reason
    assert "secret" not in event.reason
    assert "\n" not in event.reason
