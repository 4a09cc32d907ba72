"""The forked child of the worker: cut off from the worker's channels, then at work on one job."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

from fedpriv.training.jobs import LOG, Job, do_job, failure_message

MAX_FILE_BYTES = 8 * 2**30
"""No file that a child writes may grow beyond this: an adapter of the largest models is smaller."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def be_quiet() -> None:
    """Set the environment of worker and children: no network look-ups, no progress bars, no thread pools of others."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TRANSFORMERS_VERBOSITY="error",
    )


def _prctl(option: int, value: int) -> None:
    """Call Linux's prctl; elsewhere nothing like it exists, and the worker's end of input ends the child."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def set_dumpable(dumpable: bool) -> None:
    """Allow or forbid other processes of this user to read this one's memory and open files."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def open_log(out: Path) -> int:
    """Create the log of a job, readable by its owner only, and return its descriptor; an old one is replaced."""
    path = out / LOG
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def settle(parent: int, log: int) -> None:
    """Make this process die with the worker, lead a session of its own, and write only to its log.

    Parameters
    ----------
    parent : int
        The worker's process id.
    log : int
        Descriptor that becomes standard output and standard error.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_dumpable(True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))


def work(job: Job, pipe: int) -> int:
    """Do the job; return the exit status. Progress and a failure go to the worker through ``pipe``."""

    def tell(message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(pipe, json.dumps(message).encode() + b"\n")

    try:
        do_job(job, lambda step, steps: tell({"step": int(step), "steps": int(steps)}))
    except BaseException as error:  # the process ends here, with the reason told
        tell(failure_message(job, error))
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):  # the process ends with os._exit, which flushes nothing
            with contextlib.suppress(Exception):
                stream.flush()
    return 0
