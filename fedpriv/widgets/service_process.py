"""A domain's service in a process of its own, started and stopped from a screen; it outlives the notebook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from fedpriv.domain import Domain, DomainFolder
from fedpriv.domain.finding import visible
from fedpriv.errors import LockError, RefusedError
from fedpriv.files import PRIVATE_FILE
from fedpriv.widgets.plain_output import plain_output

LOG = "serve.log"
_MOST_LOG_BYTES = 64 * 1024
_ERROR = "Error: "


def start_service(domain: Domain) -> subprocess.Popen[bytes]:
    """Start ``fedpriv domain serve``; what it prints goes to ``serve.log`` in the domain's state, anew each time.

    Raises
    ------
    LockError
        If the domain is served already.
    """
    if domain.service()["running"]:
        raise LockError("The service runs already", kept="It goes on", todo="stop it first to start it again")
    log = os.open(domain.folder.state / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fedpriv", "domain", "serve", str(domain.folder.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=plain_output(),
            start_new_session=True,
        )
    finally:
        os.close(log)


def stop_service(domain: Domain) -> None:
    """Ask the service to end, wherever it was started: it puts away what it does, and goes on with it another time.

    Raises
    ------
    RefusedError
        If it does not run, or runs on another machine.
    """
    try:
        pid = int(domain.folder.lock_path.read_text(encoding="utf-8", errors="replace").strip())
        if not domain.service()["running"]:  # a lock that nobody holds names a process that may be somebody else's
            raise ValueError
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise RefusedError("The service does not run on this machine", kept="Nothing was changed") from error


def last_error(folder: DomainFolder) -> str:
    """Return the sentence that the last service ended with, if it was started from here and that was an error."""
    log, status = folder.state / LOG, folder.status_path
    try:
        if status.exists() and status.stat().st_mtime_ns > log.stat().st_mtime_ns:
            return ""  # another one served after it
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _MOST_LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    found = next((line for line in reversed(lines) if line.startswith(_ERROR)), "")
    return visible(found.removeprefix(_ERROR), 1000)
