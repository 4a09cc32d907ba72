"""What the service does when the store, or this machine, does not let it: say so, wait, longer each time, try again."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedpriv.errors import FedprivError, TransportError

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 30.0
_WORDS = "trouble with"
_PACKAGE = Path(__file__).parents[1]
_OF_WHAT_WAS_SENT = frozenset(
    {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)
"""What the system says of a name or a file that is not what it should be; of its own state it says other things."""
T = TypeVar("T")


class MachineTrouble(OSError):
    """Something of this machine, met where nothing of what others sent is looked at any more."""


OF_THE_MACHINE = (OSError, MemoryError, sqlite3.Error)


def is_of_the_machine(error: Exception) -> bool:
    """Say whether an error is of this machine, such as a full disk, and not of what somebody sent."""
    if isinstance(error, MachineTrouble):
        return True
    return isinstance(error, OSError) and error.errno not in _OF_WHAT_WAS_SENT


@contextlib.contextmanager
def of_the_machine() -> Iterator[None]:
    """Have every error of files, memory and journals count as one of this machine: it is waited for, not answered.

    Raises
    ------
    MachineTrouble
        In place of any of them.
    """
    try:
        yield
    except OF_THE_MACHINE as error:
        raise MachineTrouble(getattr(error, "errno", None) or errno.EIO, str(error)) from error


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


@dataclass(kw_only=True)
class Trouble:
    """Pauses between attempts.

    Parameters
    ----------
    say : Callable[[str], object]
        Called with the state that ``fedpriv domain status`` shows.
    notify : Callable[[str], None]
        Called with one sentence each time.
    note : Callable[[Exception, float], None]
        Called with the error and the pause in seconds, each time.
    """

    say: Callable[[str], object]
    notify: Callable[[str], None]
    note: Callable[[Exception, float], None] = lambda error, pause_s: None
    _pause_s: float = 0.0

    def met(self, error: Exception) -> float:
        """Say what was met and return the seconds to wait: half a second at first, half a minute at most."""
        self._pause_s = min(_LONGEST_SECONDS, max(_FIRST_SECONDS, 2 * self._pause_s))
        where = "this machine" if isinstance(error, OSError) else "the store"
        self.say(f"{_WORDS} {where}: {error}")
        self.note(error, self._pause_s)
        self.notify(f"{str(error).rstrip('.')}. Trying again in {self._pause_s:.1f} s.")
        return self._pause_s

    def over(self) -> bool:
        """Note that something went well; return whether there was trouble before."""
        was, self._pause_s = self._pause_s > 0, 0.0
        return was

    def patiently(self, step: Callable[[], T]) -> T:
        """Do a step, again and again while the store cannot be reached."""
        while True:
            try:
                done = step()
            except TransportError as error:
                time.sleep(self.met(error))
            else:
                self.over()
                return done
