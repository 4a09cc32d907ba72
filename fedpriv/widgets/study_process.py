"""A study's run in a process of its own, which outlives the notebook that started it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from fedpriv.researcher.study import Study
from fedpriv.widgets.background import error_in, start_in_background

LOG = "run.log"


def start_run(study: Study, *, resume: bool = False, report_to: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start ``fedpriv study run`` (or ``resume``) of a study; it goes on when this process ends.

    What it prints goes to ``run.log`` in the study's state, anew for each run.
    """
    command = ["study", "resume" if resume else "run", study.folder.root.name, "--home", str(study.researcher.root)]
    for tracker in report_to:
        command += ["--report-to", tracker]
    return _start(study, command)


def start_release(study: Study, target: Path) -> subprocess.Popen[bytes]:
    """Start ``fedpriv study release``: it waits for the data owners, and writes the adapter to ``target``."""
    home = ["--home", str(study.researcher.root)]
    return _start(study, ["study", "release", study.folder.root.name, "--out", str(target), *home])


def _start(study: Study, command: list[str]) -> subprocess.Popen[bytes]:
    return start_in_background(command, study.folder.state / LOG)


def last_error(study: Study) -> str:
    """Return the sentence that the last run of a study ended with, if it ended with an error; else nothing."""
    return error_in(study.folder.state / LOG)
