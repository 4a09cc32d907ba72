"""What the service does when the store, or this machine, does not let it: say so, wait, longer each time, try again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from fedpriv.errors import FedprivError, TransportError
from fedpriv.unforeseen import OF_THE_MACHINE, MachineTrouble, unforeseen

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 30.0
_WORDS = "trouble with"
T = TypeVar("T")


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
        raise MachineTrouble.of(error) from error


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
        where, told = "the store", str(error)
        if isinstance(error, OF_THE_MACHINE):
            where, told = "this machine", told or type(error).__name__
        elif not isinstance(error, FedprivError):
            where, told = "what it met", str(unforeseen(error))
        self.say(f"{_WORDS} {where}: {told}")
        self.note(error, self._pause_s)
        self.notify(f"{told.rstrip('.')}. Trying again in {self._pause_s:.1f} s.")
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
