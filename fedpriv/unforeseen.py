"""Errors that no code of ours raises on purpose: whether they are this machine's, and what is said of the others."""

from __future__ import annotations

import errno
import sqlite3
import traceback
from pathlib import Path

from fedpriv.errors import FedprivError

_PACKAGE = Path(__file__).parent
_OF_WHAT_WAS_SENT = frozenset(
    {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)
"""What the system says of a name or a file that is not what it should be; of its own state it says other things."""
OF_THE_MACHINE = (OSError, MemoryError, sqlite3.Error)


class MachineTrouble(OSError):
    """Something of this machine, met where nothing of what others sent is looked at any more."""

    @classmethod
    def of(cls, error: Exception) -> MachineTrouble:
        """Return an error of files, memory or journals as one that is waited for."""
        return cls(getattr(error, "errno", None) or errno.EIO, str(error) or type(error).__name__)


def is_of_the_machine(error: Exception) -> bool:
    """Say whether an error is of this machine, such as a full disk, and not of what somebody sent."""
    if isinstance(error, MachineTrouble):
        return True
    return isinstance(error, OSError) and error.errno not in _OF_WHAT_WAS_SENT


def unforeseen(error: Exception) -> FedprivError:
    """Return what is said of an error that no code of ours raises on purpose: its kind and place, none of its words."""
    return FedprivError(
        f"It could not be handled ({type(error).__name__} in {place_of(error)})",
        kept="Nothing of it was used",
        todo="report this to the makers of fedpriv, with its version",
    )


def place_of(error: Exception) -> str:
    """Return the last line of our own code that an error came through, such as ``tickets.py:120``."""
    lines = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [f"{path.name}:{line}" for path, line in lines if _PACKAGE in path.parents]
    return ours[-1] if ours else "no known place"
