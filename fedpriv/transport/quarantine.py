"""Messages that broke a rule: that each came is noted, so that a person can ask why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fedpriv.files import private_folder, sha256_hex, write_json

MAX_QUARANTINED = 1000
"""Records of refused messages that are kept, the newest."""


class Quarantine:
    """Where a message that broke a rule is noted: who sent it, its digest and why, never its content."""

    def __init__(self, folder: Path, notify: Callable[[str, str], None]) -> None:
        self._folder = private_folder(folder)
        self._notify = notify

    def add(self, peer: str, key: str, data: bytes | None, reason: str) -> None:
        record = {"peer": peer, "key": key, "sha256": sha256_hex(data or b""), "reason": reason, "time_s": time.time()}
        write_json(self._folder / f"{time.time_ns():020d}-{sha256_hex(key.encode())[:24]}.json", record)
        for old in sorted(self._folder.glob("*.json"))[:-MAX_QUARANTINED]:
            old.unlink(missing_ok=True)
        self._notify(peer, reason)
