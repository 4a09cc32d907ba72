"""Panels for notebooks, and what they show: states and actions that know no Jupyter.

The panels need the extra ``lab``; each is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpriv.widgets.dataset_explorer import DatasetExplorer
    from fedpriv.widgets.owner_console import DataOwnerConsole
    from fedpriv.widgets.round_control import RoundControl
    from fedpriv.widgets.study_builder import StudyBuilder
    from fedpriv.widgets.study_process import start_run
    from fedpriv.widgets.study_watch import wait_until

_PLACES = {
    "DataOwnerConsole": "owner_console",
    "DatasetExplorer": "dataset_explorer",
    "RoundControl": "round_control",
    "StudyBuilder": "study_builder",
    "start_run": "study_process",
    "wait_until": "study_watch",
}

__all__ = ["DataOwnerConsole", "DatasetExplorer", "RoundControl", "StudyBuilder", "start_run", "wait_until"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
