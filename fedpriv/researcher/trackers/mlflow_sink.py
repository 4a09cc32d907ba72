"""MLflow: one run for each study, found again by its tag."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from fedpriv.files import private_folder
from fedpriv.researcher.trackers.rows import MARK, Row
from fedpriv.researcher.trackers.tracking import TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_TAG = "fedpriv.study"
_EXPERIMENT = "fedpriv"
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST_PARAMETER = 1000, 100, 6000  # of one request; MLflow's limits
T = TypeVar("T")


class MlflowSink:
    """Logs to ``MLFLOW_TRACKING_URI``, or without it to a database in the study's folder of trackers."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._run_id = ""

    def open(self, run: TrackedRun) -> Collection[tuple[int, int]]:
        client = self._client = _connect(run)
        found = _find(client, run)
        self._run_id = found.info.run_id
        new = [item for item in run.parameters.items() if item[0] not in found.data.params]
        self._log_parameters(client, new)
        return {(point.step, point.timestamp) for point in client.get_metric_history(self._run_id, MARK)}

    def _log_parameters(self, client: MlflowClient, items: list[tuple[str, str | int | float | bool]]) -> None:
        from mlflow.entities import Param

        for some in _batches([Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in items], _MOST_PARAMETERS):
            client.log_batch(self._run_id, params=some)

    def log(self, row: Row) -> None:
        from mlflow.entities import Metric

        if self._client is None:
            raise RuntimeError("it was not opened")
        step, time_ms = row.key
        names = sorted(row.values, key=lambda name: name == MARK)
        for some in _batches([Metric(name, row.values[name], time_ms, step) for name in names], _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=some)

    def close(self, *, finished: bool) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")


def _connect(run: TrackedRun) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is read when mlflow is imported
    import mlflow
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of every table they make
        logging.getLogger(name).setLevel(logging.WARNING)
    if mlflow.is_tracking_uri_set():
        return MlflowClient(mlflow.get_tracking_uri())
    return MlflowClient(f"sqlite:///{private_folder(run.folder / 'mlflow') / 'mlflow.db'}")


def _find(client: MlflowClient, run: TrackedRun) -> Run:
    """Return the study's run, made running again, or a new one.

    The tags that MLflow's own functions add (user, program, git commit) are not among ours.
    """
    from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

    name = MLFLOW_EXPERIMENT_NAME.get() or _EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment is not None else client.create_experiment(name)
    found = client.search_runs([experiment_id], filter_string=f"tags.`{_TAG}` = '{run.study}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0]
    return client.create_run(experiment_id, tags={_TAG: run.study}, run_name=run.name)


def _batches(items: Sequence[T], most: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, most)):
        yield some
