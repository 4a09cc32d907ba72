"""The signs of life of a service: when its loop last turned, when the store last answered, what it moved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from fedpriv.study.messages import LinkSample

Phase = Literal["starting", "waiting", "working", "trouble", "stopped"]
PHASES: tuple[Phase, ...] = ("starting", "waiting", "working", "trouble", "stopped")
Place = Literal["store", "machine", "unforeseen"]

_QUIET_SECONDS, _BUSY_SECONDS = 120.0, 900.0
"""Longest without a sign: between tickets, more than the longest pause after trouble and a store's time-out together;
in a ticket, more than sealing or opening a large adapter, which tells nothing while it lasts."""


@dataclass(kw_only=True)
class Vitals:
    """Written by the service's threads, read by those of the endpoint.

    Parameters
    ----------
    clock : Callable[[], float]
        Seconds that only grow.
    """

    clock: Callable[[], float] = time.monotonic
    _phase: Phase = "starting"
    _sign_s: float = field(init=False)
    _contact_s: float | None = None
    _trouble: Place | None = None
    _moved: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _worked: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._sign_s = self.clock()

    # -- written by the service --------------------------------------------------------------------------------

    def sign(self) -> None:
        """Note that the service is doing something."""
        self._sign_s = self.clock()

    def store_answered(self) -> None:
        """Note that the store was reached."""
        self._contact_s = self.clock()
        if self._trouble == "store":
            self._trouble = None

    def ready(self) -> None:
        """Note that a turn of the loop went well."""
        self.sign()
        self._phase, self._trouble = "waiting", None

    def stopped(self) -> None:
        """Note that the service ends."""
        self._phase = "stopped"

    def met_trouble(self, place: Place) -> None:
        """Note that the store, this machine or something unforeseen did not let the service work; it tries again."""
        self.sign()
        self._phase, self._trouble = "trouble", place

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the block as work on a ticket."""
        self.sign()
        self._phase = "working"
        try:
            yield
        finally:
            self.sign()
            self._phase = "waiting"

    def carried_out(self, seconds: Mapping[str, float], link: LinkSample | None) -> None:
        """Add what one ticket took and moved."""
        with self._lock:
            for part, value in seconds.items():
                self._worked[part] = self._worked.get(part, 0.0) + value
            if link is not None:
                self._moved["up"] += link.up_bytes
                self._moved["down"] += link.down_bytes

    # -- read by others ----------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def quiet_s(self) -> float:
        """Seconds since the last sign of life."""
        return self.clock() - self._sign_s

    @property
    def contact_age_s(self) -> float | None:
        """Seconds since the store was last reached; None before the first time."""
        return None if self._contact_s is None else self.clock() - self._contact_s

    def moved(self) -> dict[str, int]:
        """Return bytes ``up`` and ``down`` since the start."""
        with self._lock:
            return dict(self._moved)

    def worked(self) -> dict[str, float]:
        """Return wall clock in seconds by part of the work (train, seal, open, ...) since the start."""
        with self._lock:
            return dict(self._worked)

    def complaint(self) -> str:
        """Return one sentence on what is wrong, without a name, path or reason; empty if the service is well."""
        phase, quiet_s, contact_s = self._phase, self.quiet_s, self.contact_age_s
        if phase == "stopped":
            return "The service is stopping."
        if quiet_s > (_BUSY_SECONDS if phase == "working" else _QUIET_SECONDS):
            return f"The service has given no sign of life for {quiet_s:.0f} s."
        if self._trouble == "store":
            since = "since the start" if contact_s is None else f"for {contact_s:.0f} s"
            return f"The store has not answered {since}; the service tries again."
        if self._trouble == "machine":
            return "This machine does not let the service work; `fedpriv domain status` says why."
        if self._trouble == "unforeseen":
            return "Something unforeseen does not let the service work; `fedpriv domain status` says what."
        return "The service is starting and not ready yet." if phase == "starting" else ""
