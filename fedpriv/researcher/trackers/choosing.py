"""Which trackers there are, which are installed, and a tracker by its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpriv.errors import ConfigError
from fedpriv.researcher.events import Event
from fedpriv.researcher.trackers.mlflow_sink import MlflowSink
from fedpriv.researcher.trackers.rows import parameters, short_names
from fedpriv.researcher.trackers.tensorboard_sink import TensorBoardSink
from fedpriv.researcher.trackers.tracking import Sink, TrackedRun, Tracker
from fedpriv.researcher.trackers.wandb_sink import WandbSink

if TYPE_CHECKING:
    from fedpriv.researcher.study import Study

ReportTo = str | Sequence[str] | None


@dataclass(frozen=True)
class _Kind:
    module: str
    sink: Callable[[], Sink]


_KINDS = {
    "tensorboard": _Kind("tensorboard", TensorBoardSink),
    "mlflow": _Kind("mlflow", MlflowSink),
    "wandb": _Kind("wandb", WandbSink),
}


def tracker_names(report_to: ReportTo) -> tuple[str, ...]:
    """Return the trackers that ``report_to`` means, each once.

    Parameters
    ----------
    report_to : str or sequence of str or None
        Names of trackers; ``"all"`` means those that are installed, ``"none"`` (or None) means none.

    Raises
    ------
    ConfigError
        If a name is unknown, is not installed, or stands beside ``"all"`` or ``"none"``.
    """
    names = tuple(dict.fromkeys([report_to] if isinstance(report_to, str) else report_to or ()))
    if names in ((), ("none",)):
        return ()
    if names == ("all",):
        return tuple(name for name in _KINDS if _is_installed(name))
    for name in names:
        if name not in _KINDS:
            alone = name in ("all", "none")
            what = f"{name!r} stands beside other trackers" if alone else f"There is no tracker {name!r}"
            raise ConfigError(what, kept="Nothing was started", todo=f"choose of {', '.join(_KINDS)}; or all, or none")
        if not _is_installed(name):
            raise ConfigError(
                f"The tracker {name} is not installed",
                kept="Nothing was started",
                todo=f"run `pip install 'fedpriv[{name}]'`, or leave it out",
            )
    return names


def tracker(name: str, study: Study, tell: Callable[[Event], None] | None = None) -> Tracker:
    """Return a subscriber that reports a study to ``tensorboard``, ``mlflow`` or ``wandb``.

    The library is imported with the first event, in the tracker's thread.

    Raises
    ------
    ConfigError
        If there is no such tracker, it is not installed, or the study was not submitted yet.
    """
    if name in ("all", "none"):
        raise ConfigError(f"{name!r} is no single tracker", todo=f"choose one of {', '.join(_KINDS)}")
    (known,) = tracker_names(name)
    request = study.folder.submitted()
    run = TrackedRun(
        study=request.study,
        name=study.folder.root.name,
        folder=study.trackers_folder,
        labels=short_names(request.plan.emails),
        parameters=parameters(request.plan),
    )
    return Tracker(known, _KINDS[known].sink(), run, study.history, tell)


def open_trackers(
    report_to: ReportTo, study: Study, tell: Callable[[Event], None] | None = None
) -> tuple[Tracker, ...]:
    """Return the trackers that ``report_to`` means; see :func:`tracker_names` and :func:`tracker`."""
    return tuple(tracker(name, study, tell) for name in tracker_names(report_to))


def _is_installed(name: str) -> bool:
    """Say whether a package can be imported; a folder of that name, such as wandb makes, is none."""
    found = importlib.util.find_spec(_KINDS[name].module)
    return found is not None and found.origin is not None
