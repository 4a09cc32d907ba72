"""The end of a log that untrusted code wrote, so that it can be read at a terminal."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedpriv.domain.finding import lines_of, visible

_LOG_BYTES = 64 * 1024


def last_lines(path: Path, most: int) -> tuple[str, ...]:
    """Return the last lines of a log that are not empty, at most ``most``; nothing where there is no plain file.

    *Guarantee*: no line holds a character that means something to a terminal; links and pipes that the code may have
    put in the log's place are not followed. What the lines say is the code's, and may be of patients.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return ()  # the code put something else in its place
        text = os.pread(descriptor, _LOG_BYTES, max(0, facts.st_size - _LOG_BYTES)).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    return tuple(visible(line) for line in lines_of(text) if line.strip())[-most:]
