"""fedpriv's own commands in processes that outlive a notebook, and the sentences that a panel reads of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpriv.files import PRIVATE_FILE

ERROR = "Error: "
_MOST_LOG_BYTES = 256 * 1024

_ASKING_FOR_COLOUR = frozenset({"FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS"})


def plain_output() -> dict[str, str]:
    """Return an environment in which a command prints each sentence in one line, without colours or moving bars.

    A notebook's kernel asks all programs for colours, as if they had a terminal.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _ASKING_FOR_COLOUR}
    return kept | {"COLUMNS": "10000", "NO_COLOR": "1", "TERM": "dumb"}


def start_in_background(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``fedpriv COMMAND`` in a session of its own; what it prints goes to ``log``, anew and 0600."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fedpriv", *command],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=plain_output(),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def error_in(log: Path) -> str:
    """Return the sentence that a command ended with, if it ended with an error; else nothing."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _MOST_LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.removeprefix(ERROR) for line in reversed(lines) if line.startswith(ERROR)), "")
