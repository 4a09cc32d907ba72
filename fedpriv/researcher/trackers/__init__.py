"""Experiment trackers as subscribers of a study: ``report_to``, as in transformers."""

from fedpriv.researcher.trackers.choosing import ReportTo, open_trackers, tracker, tracker_names
from fedpriv.researcher.trackers.rows import Row, rows
from fedpriv.researcher.trackers.tracking import Sink, TrackedRun, Tracker

__all__ = [
    "ReportTo",
    "Row",
    "Sink",
    "TrackedRun",
    "Tracker",
    "open_trackers",
    "rows",
    "tracker",
    "tracker_names",
]
