"""Tickets that lack something on the store, a blob or a party's version: they wait a while, since it is put back."""

from __future__ import annotations

import time

_SECONDS = 120.0
_LOOK_SECONDS = 5.0


class Missing:
    """When tickets were first found to lack something, and when they were looked at last. Nothing waits meanwhile."""

    def __init__(self) -> None:
        self._first_s: dict[str, float] = {}
        self._looked_s: dict[str, float] = {}

    def is_too_early(self, ticket: str) -> bool:
        """Say whether a ticket was looked at a moment ago."""
        looked = self._looked_s.get(ticket)
        return looked is not None and time.monotonic() - looked < _LOOK_SECONDS

    def may_still_come(self, ticket: str) -> bool:
        """Note that something is missing; say whether to wait for it: not for ever, and not anew each time."""
        now = time.monotonic()
        self._looked_s[ticket] = now
        return now - self._first_s.setdefault(ticket, now) < _SECONDS
