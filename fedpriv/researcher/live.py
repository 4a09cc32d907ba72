"""Where domains are just now, for other processes: a small file beside the history, which keeps no progress."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pydantic import Field

from fedpriv.errors import PlanError, UntrustedError
from fedpriv.files import read_json, write_json
from fedpriv.researcher.events import DomainProgress, Event
from fedpriv.study import Progress, validate_section
from fedpriv.study.names import Email
from fedpriv.study.section import Section

LIVE = "live.json"
EVERY_S = 0.2
MAX_BYTES = 2**20


class Live(Section):
    """What :class:`LiveFile` writes: by address, when a domain was heard of (s since the epoch), and where it is."""

    domains: dict[Email, tuple[float, Progress]] = Field(default_factory=dict, max_length=256)


class LiveFile:
    """A subscriber that keeps every domain's last progress in a file, written five times a second at the most.

    Nothing depends on it: it is not flushed to the disk, and a missing or old one shows less.

    Parameters
    ----------
    folder : Path
        The study's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LIVE
        self._domains: dict[str, tuple[float, Progress]] = {}
        self._written = 0.0

    def __call__(self, event: Event) -> None:
        if not isinstance(event, DomainProgress):
            return
        self._domains[event.domain] = (event.time_s, event.progress)
        if time.monotonic() - self._written >= EVERY_S:
            self._write()

    def close(self) -> None:
        """Write what came last."""
        if self._domains:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        live = Live.model_validate({"domains": self._domains})
        with contextlib.suppress(OSError):  # a full disk shows less, and is said by what needs it
            write_json(self._path, live.model_dump(mode="json"), durable=False)


def read_live(folder: Path) -> list[DomainProgress]:
    """Return the last progress of every domain, as events, oldest first; none where it is not known."""
    try:
        value = read_json(folder / LIVE, max_bytes=MAX_BYTES)
        live = validate_section(Live, value, source=LIVE)
    except (OSError, UntrustedError, PlanError):
        return []
    found = [
        DomainProgress(study=progress.study, time_s=time_s, domain=email, progress=progress)
        for email, (time_s, progress) in live.domains.items()
    ]
    return sorted(found, key=lambda event: event.time_s)
