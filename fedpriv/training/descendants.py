"""Every process that a job started, however far it ran from its parent: found, ended and reaped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 10.0


def adopt_descendants() -> None:
    """Become the parent of every orphan among this process's descendants, so that none can slip away (Linux only)."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def kill_descendants() -> None:
    """Kill and reap whatever descends from this process, until nothing does.

    Everything is stopped before anything is killed, so that a fork bomb cannot grow faster than it is ended.

    Raises
    ------
    TimeoutError
        If something is still there after ten seconds.
    """
    this, deadline = psutil.Process(), time.monotonic() + _PATIENCE_S
    while children := this.children(recursive=True):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in children:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.send_signal(number)
        _reap()
        if time.monotonic() > deadline:
            raise TimeoutError("processes of a job could not be ended")


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
