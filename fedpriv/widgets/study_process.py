"""A study's run in a process of its own, which outlives the notebook that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpriv.files import PRIVATE_FILE
from fedpriv.researcher.study import Study
from fedpriv.widgets.plain_output import plain_output

LOG = "run.log"
MAX_LOG_BYTES = 256 * 1024
_ERROR = "Error: "


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
    log = os.open(study.folder.state / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fedpriv", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=plain_output(),
            start_new_session=True,
        )
    finally:
        os.close(log)


def last_error(study: Study) -> str:
    """Return the sentence that the last run of a study ended with, if it ended with an error; else nothing."""
    try:
        with (study.folder.state / LOG).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.removeprefix(_ERROR) for line in reversed(lines) if line.startswith(_ERROR)), "")
