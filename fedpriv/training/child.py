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
from collections.abc import Callable
from pathlib import Path

from fedpriv.training.attempts import notice
from fedpriv.training.device import open_device
from fedpriv.training.jobs import LOG, Job, do_job, failure_message
from fedpriv.training.landlock import restrict
from fedpriv.training.ranks import ALONE, PeerLostError, Ranks, meet
from fedpriv.training.system_calls import filter_system_calls

_THREADS = Path("/proc/self/task")
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
    _die_with(parent)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_dumpable(True)
    _read_nothing()
    for target in (1, 2):
        os.dup2(log, target)
    os.close(log)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def settle_rank(launcher: int) -> None:
    """Make this process die with its launcher and read nothing; all else it has from there."""
    _die_with(launcher)
    _read_nothing()


def _die_with(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def confine(job: Job, connect: Callable[[], Ranks] | None = None) -> Ranks:
    """Put this process into the job's fence, from which neither it nor what it starts can get out again.

    The job's device is opened on the way: CUDA's driver opens a socket when it starts, and no code of a request has
    been read yet.

    Parameters
    ----------
    connect : Callable[[], Ranks], optional
        Opens the sockets to the other ranks; afterwards none can be opened. Called when Landlock and the limits hold,
        which hold for the threads that it starts, too; the filter of system calls follows, for all threads.

    Raises
    ------
    OSError, ValueError
        If the kernel refuses to; the job must not be run then.
    ConfigError
        If the device is not to be had.
    """
    fence = job.fence
    if fence is None:
        return _connected(job, connect)
    if fence.walls:
        _check_one_thread()
    os.setpriority(os.PRIO_PROCESS, 0, _LEAST_PRIORITY)  # whoever watches it must get a word in
    _limit(resource.RLIMIT_FSIZE, fence.file_bytes)
    _limit(resource.RLIMIT_CPU, fence.cpu_s, grace=5)  # first a signal with a name of its own, then the end
    if sys.platform == "linux":
        if fence.memory_bytes is not None:
            _limit(resource.RLIMIT_DATA, fence.memory_bytes // job.processes)
        if fence.processes is not None:
            _limit(resource.RLIMIT_NPROC, fence.processes)
    if fence.walls:
        readable = [Path(place) for place in fence.readable]
        restrict(readable, [Path(job.out), *map(Path, fence.writable)], tcp=connect is not None)
    ranks = _connected(job, connect)
    if fence.walls:
        filter_system_calls()
    return ranks


def _connected(job: Job, connect: Callable[[], Ranks] | None) -> Ranks:
    ranks = connect() if connect else ALONE
    open_device(job.device, rank=ranks.rank, size=ranks.size)
    return ranks


def _check_one_thread() -> None:
    """Refuse to go on where Landlock would hold for one of several threads only."""
    if _THREADS.is_dir() and len(list(_THREADS.iterdir())) > 1:
        raise OSError("a thread was started before the fence was up")


def _limit(what: int, most: int, *, grace: int = 0) -> None:
    """Lower a soft limit to ``most``, and the hard one to ``most + grace``; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    soft, top = (value if hard == resource.RLIM_INFINITY else min(value, hard) for value in (most, most + grace))
    resource.setrlimit(what, (soft, top))


def work(job: Job, pipe: int, connect: Callable[[], Ranks] | None = None) -> int:
    """Do the job; return the exit status. Progress and a failure go to the worker through ``pipe``.

    With ``connect``, this is one of several processes that do it together: the first one tells how it goes on, each its
    own failure. No code of a request is read before all of them are behind the fence.
    """

    def tell(message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(pipe, json.dumps(message).encode() + b"\n")

    try:
        ranks = confine(job, connect)
        meet()
        if job.fence is not None and job.runs_recipe:
            readable = [Path(place) for place in job.fence.readable]
            writable = [Path(job.out), *map(Path, job.fence.writable)]
            notice(lambda attempt: tell({"tried": attempt}), readable, writable)
        if ranks.first:
            tell({"started": True})
        do_job(job, lambda step, steps: tell({"step": int(step), "steps": int(steps)}) if ranks.first else None)
    except BaseException as error:  # the process ends here, with the reason told
        if not isinstance(error, PeerLostError):  # another one has the reason
            tell(failure_message(job, error))
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):  # the process ends with os._exit, which flushes nothing
            with contextlib.suppress(Exception):
                stream.flush()
    return 0
