"""``python -m fedpriv.training.worker [--four-bits]``: the process that trains for a domain, one child for each job.

It reads one JSON object a line on standard input (:class:`fedpriv.training.jobs.Job`) and writes events, one JSON
object a line, on standard output::

    {"event": "ready"}
    {"event": "started", "id": ...}
    {"event": "progress", "id": ..., "step": 3, "steps": 4}
    {"event": "tried", "id": ..., "what": "network"}
    {"event": "done", "id": ...}
    {"event": "failed", "id": ..., "reason": ...}

The parent imports torch and the concrete classes once and computes nothing, so that a fork costs milliseconds and
finds no thread pool. Each job runs in a forked child, in a session of its own, which dies with the worker; a job that
several processes do together is launched by that child (:mod:`fedpriv.training.launch`). Jobs run one after the other.
At the end of standard input the worker kills its child and exits. What base models of 4-bit weights need is imported
with ``--four-bits`` alone, as it makes the worker a third slower to start; other workers refuse such jobs.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fedpriv.errors import FedprivError, TrainingError
from fedpriv.files import parse_json
from fedpriv.study.validation import validate_section
from fedpriv.training import child
from fedpriv.training.descendants import adopt_descendants, kill_descendants
from fedpriv.training.jobs import Job, failure_reason, parse_attempt, parse_progress
from fedpriv.training.launch import launch
from fedpriv.training.preload import FOUR_BITS, preload

MAX_LINE_BYTES = 64 * 1024
MAX_CHILD_LINE_BYTES = 4096
PROGRESS_EVERY_S = 0.05

_LOOK_EVERY_S = 0.1
"""Where the kernel cannot wake us for a child that ended (no pidfd outside Linux)."""


@dataclass
class _Running:
    """A job whose child is at work."""

    job: Job
    pid: int
    pidfd: int | None
    pipe: int
    deadline: float
    buffer: bytes = b""
    failure: dict[str, Any] | None = None
    tried: set[str] = field(default_factory=set)
    started: bool = False
    told: float = 0.0
    step: int = 0
    told_step: int = 0


class Worker:
    """The loop of the worker: jobs in, events out, one child at a time.

    Parameters
    ----------
    jobs : int
        File descriptor to read jobs from.
    events : int
        File descriptor to write events to; children do not inherit it open.
    four_bits : bool
        Whether what base models of 4-bit weights need was imported.
    """

    def __init__(self, jobs: int, events: int, *, four_bits: bool = False) -> None:
        self._jobs, self._events, self._four_bits = jobs, events, four_bits
        self._selector = selectors.DefaultSelector()
        self._selector.register(jobs, selectors.EVENT_READ)
        self._buffer = b""
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: _Running | None = None

    def run(self) -> None:
        """Work until the end of the jobs; then no child is left."""
        self._say({"event": "ready"})
        try:
            while True:
                if self._running is None and self._waiting:
                    self._start(self._waiting.popleft())
                for key, _ in self._selector.select(self._patience()):
                    if key.fd == self._jobs and not self._read_jobs():
                        return
                    if self._running is not None and key.fd == self._running.pipe:
                        self._read_child(self._running)
                if self._running is not None:
                    self._look_after(self._running)
        finally:
            if self._running is not None:
                self._end(self._running)

    def _patience(self) -> float | None:
        if self._running is None:
            return None
        left = max(0.0, self._running.deadline - time.monotonic())
        return left if self._running.pidfd is not None else min(left, _LOOK_EVERY_S)

    def _say(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, ensure_ascii=True).encode() + b"\n"
        while line:
            line = line[os.write(self._events, line) :]

    def _read_jobs(self) -> bool:
        """Take in what stands on standard input; return False at its end."""
        data = os.read(self._jobs, 65536)
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._accept(line)
        if len(self._buffer) > MAX_LINE_BYTES:
            self._say({"event": "failed", "id": None, "reason": "The job is too long."})
            return False
        return True

    def _accept(self, line: bytes) -> None:
        if not line.strip():
            return
        job_id = None
        try:
            value = parse_json(line, source="the job", max_bytes=MAX_LINE_BYTES)
            job_id = value.get("id") if isinstance(value, dict) and isinstance(value.get("id"), str) else None
            job = validate_section(Job, value, source="the job")
            if job.training.four_bits and not self._four_bits:
                raise TrainingError("This worker was started without --four-bits", todo="start one with it")
            self._waiting.append(job)
        except FedprivError as error:
            self._say({"event": "failed", "id": job_id, "reason": str(error)})

    def _start(self, job: Job) -> None:
        try:
            Path(job.out).mkdir(parents=True, exist_ok=True, mode=0o700)
            log = child.open_log(Path(job.out))
        except OSError as error:
            self._say({"event": "failed", "id": job.id, "reason": f"The output folder cannot be used ({error})."})
            return
        pipe, write_end = os.pipe()  # neither is inherited across exec
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child(job, parent, write_end, log)
        os.close(write_end)
        os.close(log)
        os.set_blocking(pipe, False)
        pidfd = os.pidfd_open(pid) if sys.platform == "linux" else None
        deadline = time.monotonic() + job.wall_clock_s
        self._running = _Running(job=job, pid=pid, pidfd=pidfd, pipe=pipe, deadline=deadline)
        self._selector.register(pipe, selectors.EVENT_READ)
        if pidfd is not None:
            self._selector.register(pidfd, selectors.EVENT_READ)

    def _become_child(self, job: Job, parent: int, pipe: int, log: int) -> NoReturn:
        status = 1
        try:
            self._selector.close()
            os.close(self._events)
            child.settle(parent, log)
            if job.launched:
                child.set_dumpable(False)  # it has no fence, and code of a request will run beside it
                status = launch(job, pipe)
            else:
                status = child.work(job, pipe)
        finally:
            os._exit(status)

    def _read_child(self, running: _Running) -> None:
        """Take in a child's messages; it may have run untrusted code, so anything odd is dropped."""
        try:
            data = os.read(running.pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(running.pipe)
            return
        *lines, running.buffer = (running.buffer + data).split(b"\n")
        running.buffer = running.buffer[:MAX_CHILD_LINE_BYTES]
        for line in lines:
            with contextlib.suppress(FedprivError):
                message = parse_json(line, source="progress", max_bytes=MAX_CHILD_LINE_BYTES)
                self._hear(running, message if isinstance(message, dict) else {})
        self._tell_progress(running)

    def _hear(self, running: _Running, message: dict[str, Any]) -> None:
        if message.get("started") is True and not running.started:
            running.started = True
            self._say({"event": "started", "id": running.job.id})
        elif "failed" in message:
            running.failure = running.failure or message
        elif (attempt := parse_attempt(message)) is not None:
            if attempt not in running.tried:
                running.tried.add(attempt)
                self._say({"event": "tried", "id": running.job.id, "what": attempt})
        elif (step := parse_progress(running.job, message, running.step)) is not None:
            running.step = step

    def _tell_progress(self, running: _Running, *, at_once: bool = False) -> None:
        """Pass on the last progress, at most twenty times a second, whatever the child sends."""
        if running.step == running.told_step or not (at_once or time.monotonic() - running.told >= PROGRESS_EVERY_S):
            return
        running.told, running.told_step = time.monotonic(), running.step
        self._say({"event": "progress", "id": running.job.id, "step": running.step, "steps": running.job.steps})

    def _look_after(self, running: _Running) -> None:
        """End a child that is over its time; report one that has ended."""
        ended = os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            if time.monotonic() < running.deadline:
                return
            self._end(running)
            reason = f"The job took longer than {running.job.wall_clock_s:.0f} seconds and was stopped."
            self._say({"event": "failed", "id": running.job.id, "reason": reason})
            return
        if running.pipe in self._selector.get_map():
            self._read_child(running)
        self._tell_progress(running, at_once=True)
        status = self._end(running)
        if status == 0:
            self._say({"event": "done", "id": running.job.id})
        else:
            self._say({"event": "failed", "id": running.job.id, "reason": _reason(running, status)})

    def _end(self, running: _Running) -> int:
        """Kill the child and all that it started, reap it, and return its exit code (negative: the signal)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        _, status = os.waitpid(running.pid, 0)
        kill_descendants()
        for descriptor in (running.pipe, running.pidfd):
            if descriptor is None:
                continue
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
        self._running = None
        return os.waitstatus_to_exitcode(status)


def _reason(running: _Running, status: int) -> str:
    if running.failure is not None:
        return failure_reason(running.job, running.failure)
    if status == -signal.SIGKILL:
        return "The training process was killed, most likely for lack of memory."
    if status == -signal.SIGXCPU:
        return "The training process used more processor time than it may."
    if status < 0:
        return f"The training process was ended by signal {-status}."
    return "The training process ended without a word."


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> int:
    """Run the worker on standard input and output; whatever libraries print goes to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)
    child.be_quiet()
    child.set_dumpable(False)
    adopt_descendants()
    signal.signal(signal.SIGTERM, _stop)
    four_bits = FOUR_BITS in sys.argv[1:]
    preload(four_bits=four_bits)
    try:
        Worker(0, events, four_bits=four_bits).run()
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
