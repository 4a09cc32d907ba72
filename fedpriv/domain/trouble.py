"""What the service does when the store, or this machine, does not let it: say so, wait, longer each time, try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fedpriv.errors import TransportError

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 30.0
_WORDS = "trouble with"
T = TypeVar("T")


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
