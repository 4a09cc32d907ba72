"""Trying again: the one place where a store that did not answer, of whatever kind, is asked once more.

Only what may help is repeated, and not for long: who waits for a store that stays away is told so, and goes on asking
at a pace of its own (`fedpriv.researcher.patience`, the domain's service).
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from fedpriv.errors import UnreachableError

ATTEMPTS = 4
"""How often something is tried in all."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
PATIENCE_SECONDS = 10.0
"""No attempt begins later than so long after the first: one that took its whole timeout is not repeated here."""
_TRANSIENT = frozenset({errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EINTR})
"""What a network folder says while its server starts again."""
T = TypeVar("T")


def with_retries(work: Callable[[], T]) -> T:
    """Do something that may be done twice, and again if the store did not answer.

    The pause before attempt ``n + 1`` is drawn evenly from 0 to ``min(5 s, 0.2 s * 2**n)`` (full jitter: three domains
    that lost one server do not come back in step).

    Raises
    ------
    UnreachableError, OSError
        What the last attempt raised, or the first that no repetition helps with.
    """
    started = time.monotonic()
    for number in range(1, ATTEMPTS + 1):
        try:
            return work()
        except (UnreachableError, OSError) as error:
            is_late = time.monotonic() - started > PATIENCE_SECONDS
            if number == ATTEMPTS or is_late or not is_transient(error):
                raise
        time.sleep(random.uniform(0.0, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (number - 1))))
    raise AssertionError


def is_transient(error: Exception) -> bool:
    """Say whether the same may succeed a moment later."""
    return isinstance(error, UnreachableError) or (isinstance(error, OSError) and error.errno in _TRANSIENT)
