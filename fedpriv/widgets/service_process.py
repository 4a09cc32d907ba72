"""A domain's service in a process of its own, started and stopped from a screen; it outlives the notebook."""

from __future__ import annotations

import os
import signal
import subprocess

from fedpriv.domain import Domain, DomainFolder
from fedpriv.domain.finding import visible
from fedpriv.errors import LockError, RefusedError
from fedpriv.widgets.background import error_in, start_in_background

LOG = "serve.log"


def start_service(domain: Domain) -> subprocess.Popen[bytes]:
    """Start ``fedpriv domain serve``; what it prints goes to ``serve.log`` in the domain's state, anew each time.

    Raises
    ------
    LockError
        If the domain is served already.
    """
    if domain.service()["running"]:
        raise LockError("The service runs already", kept="It goes on", todo="stop it first to start it again")
    return start_in_background(["domain", "serve", str(domain.folder.root)], domain.folder.state / LOG)


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
    except FileNotFoundError:
        return ""
    return visible(error_in(log), 1000)
