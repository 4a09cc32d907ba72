"""The end of a log that untrusted code wrote, so that it can be read at a terminal."""

from __future__ import annotations

import os
from pathlib import Path

from fedpriv.domain.finding import lines_of, visible
from fedpriv.files import open_plain

_LOG_BYTES = 64 * 1024


def last_lines(path: Path, most: int) -> tuple[str, ...]:
    """Return the last lines of a log that are not empty, at most ``most``; nothing where there is no plain file.

    *Guarantee*: no line holds a character that means something to a terminal; links and pipes that the code may have
    put in the log's place are not followed. What the lines say is the code's, and may be of patients.
    """
    try:
        descriptor = open_plain(path)
    except OSError:  # there is none, or the code put something else in its place
        return ()
    try:
        size = os.fstat(descriptor).st_size
        text = os.pread(descriptor, _LOG_BYTES, max(0, size - _LOG_BYTES)).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    return tuple(visible(line) for line in lines_of(text) if line.strip())[-most:]
