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

from fedpriv.training.attempts import notice
from fedpriv.training.jobs import LOG, Job, do_job, failure_message
from fedpriv.training.landlock import restrict
from fedpriv.training.system_calls import filter_system_calls

_LEAST_PRIORITY = 19
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


def confine(job: Job) -> None:
    """Put this process into the job's fence, from which neither it nor what it starts can get out again.

    Raises
    ------
    OSError, ValueError
        If the kernel refuses to; the job must not be run then.
    """
    fence = job.fence
    if fence is None:
        return
    os.setpriority(os.PRIO_PROCESS, 0, _LEAST_PRIORITY)  # whoever watches it must get a word in
    _limit(resource.RLIMIT_FSIZE, fence.file_bytes)
    _limit(resource.RLIMIT_CPU, fence.cpu_s, grace=5)  # first a signal with a name of its own, then the end
    if sys.platform == "linux":
        _limit(resource.RLIMIT_DATA, fence.memory_bytes)
        if fence.processes is not None:
            _limit(resource.RLIMIT_NPROC, fence.processes)
    if fence.walls:
        readable = [Path(place) for place in fence.readable]
        restrict(readable, [Path(job.out), *map(Path, fence.writable)])
        filter_system_calls()


def _limit(what: int, most: int, *, grace: int = 0) -> None:
    """Lower a soft limit to ``most``, and the hard one to ``most + grace``; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    soft, top = (value if hard == resource.RLIM_INFINITY else min(value, hard) for value in (most, most + grace))
    resource.setrlimit(what, (soft, top))


def work(job: Job, pipe: int) -> int:
    """Do the job; return the exit status. Progress and a failure go to the worker through ``pipe``."""

    def tell(message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(pipe, json.dumps(message).encode() + b"\n")

    try:
        confine(job)
        if job.fence is not None and job.runs_recipe:
            readable = [Path(place) for place in job.fence.readable]
            writable = [Path(job.out), *map(Path, job.fence.writable)]
            notice(lambda attempt: tell({"tried": attempt}), readable, writable)
        tell({"started": True})
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
