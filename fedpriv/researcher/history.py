"""The history: every event of a study but progress, one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fedpriv.files import PRIVATE_FILE, parse_json
from fedpriv.researcher.events import DomainProgress, Event


class History:
    """Appends events to ``history.jsonl``; a line that a kill left half written is dropped at the next append."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        if isinstance(event, DomainProgress):
            return
        line = json.dumps(event.as_record(), sort_keys=True, allow_nan=False).encode() + b"\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                whole = os.pread(descriptor, size, 0).rfind(b"\n") + 1
                os.ftruncate(descriptor, whole)
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def records(self) -> list[dict[str, Any]]:
        """Return all whole records, oldest first."""
        data = self._path.read_bytes() if self._path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return [parse_json(line, source=self._path.name) for line in lines]
