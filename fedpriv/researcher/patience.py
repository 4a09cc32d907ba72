"""Patience with a store that cannot be reached: everything that is asked of it can be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fedpriv.errors import HostKeyError, TransportError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]], on_trouble: Callable[[TransportError], None]) -> T:
    """Ask until the store answers, with pauses that double up to half a minute.

    There is no end to it: whoever waits is told why, may stop the study, and goes on with it later.

    Parameters
    ----------
    ask : Callable[[], Awaitable[T]]
        Does the whole thing once; doing it again must change nothing.
    on_trouble : Callable[[TransportError], None]
        Called with what was wrong before each pause.

    Raises
    ------
    HostKeyError
        If the store shows another host key than the pinned one: a person has to ask why.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except HostKeyError:
            raise
        except TransportError as error:
            on_trouble(error)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
