"""Sends a study's request in a process of its own, which goes on when the kernel is restarted.

syft prints, and is kept from it by turning a whole process's output off for a moment: not that of a notebook's kernel.
"""

from __future__ import annotations

import subprocess
import sys

from fedpriv.errors import StudyError
from fedpriv.researcher import Study
from fedpriv.widgets.background import ERROR, plain_output
from fedpriv.widgets.builder_work import Working

_WAITING = "… "


def submit_in_child(study: Study, working: Working) -> str:
    """Run ``fedpriv study submit`` and return the study's id.

    Raises
    ------
    StudyError
        With the sentence that it ended with, if it could not be sent.
    """
    command = ["study", "submit", study.folder.root.name, "--home", str(study.researcher.root)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fedpriv", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=plain_output(),
        start_new_session=True,
    )
    error = ""
    with process:
        for line in process.stdout or ():
            words = line.decode("utf-8", "replace").strip()
            if words.startswith(_WAITING):
                working(words.removeprefix(_WAITING)[:500])
            elif words.startswith(ERROR):
                error = words.removeprefix(ERROR)
    if process.returncode:
        raise StudyError(error or "The request could not be sent", todo="" if error else "see `fedpriv study submit`")
    return study.folder.submitted_id()
