"""What the service says of itself: sentences to people, its state to a file and the monitor, events to its log."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from fedpriv.domain.domain import Domain
from fedpriv.domain.monitoring import ServiceLog, Vitals
from fedpriv.files import write_json


@dataclass(kw_only=True)
class Announcer:
    """Says each thing once, to whom it concerns.

    Parameters
    ----------
    domain : Domain
        Whose service it is.
    notify : Callable[[str], None]
        Called with one sentence for each thing that a person at the domain may want to see.
    write_log : Callable[[str], None], optional
        Called with a line of JSON for each event; None: no log.

    Attributes
    ----------
    vitals : Vitals
        What the monitor shows.
    log : ServiceLog
        Where events go; the ledger's entries are among them.
    """

    domain: Domain
    notify: Callable[[str], None]
    write_log: Callable[[str], None] | None = None
    vitals: Vitals = field(init=False, default_factory=Vitals)
    log: ServiceLog = field(init=False)
    _told: dict[Hashable, str] = field(default_factory=dict)
    _state: str = ""
    _acted_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.log = ServiceLog(self.domain.config.email, self.write_log)
        self.domain.ledger.on_append = self.log.entry

    def state(self, now: str) -> bool:
        """Write what the service is doing and since when; return whether that is something new."""
        if now == self._state:
            return False
        self._state, self._acted_s = now, time.monotonic()
        self.vitals.sign()
        status = {"state": now, "since_s": round(time.time(), 3), "pid": os.getpid()}
        with contextlib.suppress(OSError):  # on a full disk too, the service goes on and says what is wrong
            write_json(self.domain.folder.status_path, status, durable=False)
        return True

    def stage(self, stage: str, fraction: float) -> None:
        """Say where preparing is, in steps of a tenth."""
        self.state(f"preparing data: {stage}, {int(10 * fraction) * 10} %")

    def once(self, of: Hashable, what: str) -> bool:
        """Note what is told of something or somebody; return whether that is something new."""
        if self._told.get(of) == what:
            return False
        self._told[of] = what
        return True

    @property
    def quiet_s(self) -> float:
        """Seconds since the state was another one."""
        return time.monotonic() - self._acted_s
