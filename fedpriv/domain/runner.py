"""The runner: one training worker a study, in its sandbox, spoken to in JSON lines."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.gpu import check_device, gpu_files
from fedpriv.domain.launching import check_launcher
from fedpriv.domain.sandbox import Sandbox, clean_environment, cpu_seconds
from fedpriv.domain.watchdog import Watchdog, end_tree
from fedpriv.errors import TrainingError
from fedpriv.files import private_folder
from fedpriv.training.launch import Launch
from fedpriv.training.preload import FOUR_BITS

_READY_SECONDS = 180
_GRACE_SECONDS = 90
_LOOK_EVERY_SECONDS = 0.25
_MAX_LINE = 64 * 1024


def check_machine(sandbox: Sandbox, resources: ResourcesChoice) -> Launch | None:
    """Look whether this machine has what a domain's resources ask for; return how its jobs are launched.

    Raises
    ------
    ConfigError
        If it has not: no bubblewrap where it is required or processes train together, no GPU where there must be one.
    """
    check_device(resources.device)
    walls = sandbox.walls
    if resources.launcher is None:
        return None
    return check_launcher(resources, closed_network="bubblewrap" in walls)


@dataclass
class JobReport:
    """What is known of a job from outside; it stays at the domain.

    Attributes
    ----------
    tried : set of str
        What its code tried that training never needs, in the words of :mod:`fedpriv.training.attempts`.
    stopped : str
        Which limit ended it, in words; empty if none did.
    peak_memory_bytes : int
        The most memory that the worker and the job were seen to have together.
    start_s : float
        Seconds from asking for the job to the first line of work in its own, fenced process.
    processes : int
        How many processes did it together.
    """

    tried: set[str] = field(default_factory=set)
    stopped: str = ""
    peak_memory_bytes: int = 0
    start_s: float = 0.0
    processes: int = 1


class TrainingWorker:
    """A child process that keeps torch warm and forks a grandchild for each job.

    Assumption: the code it runs is untrusted. It gets no key and no ledger, a clean environment, its own process
    group, and (with bubblewrap) neither network nor a view of the domain's folder beyond what it needs.

    Parameters
    ----------
    sandbox : Sandbox
        Its walls.
    resources : ResourcesChoice
        What it may use of this machine.
    four_bits : bool
        Whether it is to do jobs with base models of 4-bit weights.

    Raises
    ------
    ConfigError
        If this machine does not have what ``resources`` ask for.
    """

    def __init__(self, sandbox: Sandbox, resources: ResourcesChoice, *, four_bits: bool = False) -> None:
        sandbox = replace(sandbox, gpu=gpu_files(resources.device))
        self._launch = check_machine(sandbox, resources)
        private_folder(sandbox.writable)
        private_folder(sandbox.writable / "scratch")
        self.sandbox, self.report, self._resources = sandbox, JobReport(), resources
        self._numbers = itertools.count(1)
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log = (sandbox.writable / "worker.log").open("ab")
        self._process = subprocess.Popen(
            # -P: else every late import looks through the current folder, which is no reading that a recipe asked for
            sandbox.wrap([sys.executable, "-P", "-m", "fedpriv.training.worker", *([FOUR_BITS] if four_bits else [])]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=clean_environment(resources.threads, sandbox.scratch),
            cwd=sandbox.writable,
            start_new_session=True,
        )
        threading.Thread(target=self._read_events, daemon=True).start()
        deadline = time.monotonic() + _READY_SECONDS
        while (event := self._next_event(1.0)) is None or event.get("event") != "ready":
            if time.monotonic() > deadline:
                self.stop()
                raise TrainingError(f"The training worker was not ready after {_READY_SECONDS} s and was ended")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(
        self,
        job: dict[str, Any],
        *,
        files: Sequence[Path],
        max_seconds: float,
        on_step: Callable[[int, int], None],
        watch: Callable[[], object] = lambda: None,
    ) -> JobReport:
        """Run one job to its end.

        Parameters
        ----------
        job : dict
            A :class:`fedpriv.training.jobs.Job` without its number and its fence.
        files : sequence of Path
            The only files and folders of this study that it may read.
        max_seconds : float
            Wall clock of the training itself; a grace period for the rest is added.
        watch : Callable[[], object]
            Called about every quarter of a second; what it raises ends the job and the worker at once.

        Raises
        ------
        TrainingError
            If the job failed or broke a limit, or the worker died; ``report`` holds what is known of it.
        BaseException
            Whatever ``watch`` raises.
        """
        launch = self._launch if job["job"] == "train" and job.get("private") is None else None
        processes = launch.processes if launch else 1
        self.report = JobReport(processes=processes)
        fence = self.sandbox.fence(self._resources, files, max_seconds=max_seconds, processes=processes)
        how = {"device": self._resources.device, "launch": launch.model_dump() if launch else None, "fence": fence}
        number, sent_s = str(next(self._numbers)), time.perf_counter()
        self._send(json.dumps({"id": number, **job, **how}, allow_nan=False))
        watchdog = Watchdog(
            pid=self._process.pid,
            folder=self.sandbox.writable,
            resources=self._resources,
            max_seconds=max_seconds + _GRACE_SECONDS,
            cpu_s=cpu_seconds(self._resources, max_seconds, processes),
        )
        looked_s = 0.0
        while True:
            if time.monotonic() - looked_s >= _LOOK_EVERY_SECONDS:
                self._look(watchdog, watch)
                looked_s = time.monotonic()
            event = self._next_event(_LOOK_EVERY_SECONDS)
            if event is None or event.get("id") not in (number, None):
                continue
            match event.get("event"):
                case "progress":
                    on_step(int(event.get("step", 0)), int(event.get("steps", 0)))
                case "started":
                    self.report.start_s = time.perf_counter() - sent_s
                case "tried":
                    self.report.tried.add(str(event.get("what"))[:40])
                case "done":
                    self._look(watchdog, watch)
                    return self.report
                case "failed":
                    reason = str(event.get("reason", ""))[:300]
                    raise TrainingError(f"The training code failed: {reason}", kept="Nothing was sent")
                case _:
                    continue

    def _send(self, line: str) -> None:
        try:
            stream = self._process.stdin
            if stream is None:
                raise BrokenPipeError
            stream.write(line.encode() + b"\n")
            stream.flush()
        except OSError as error:
            raise TrainingError(
                "The training worker is gone", kept="Nothing was sent", todo="it is started again"
            ) from error

    def _look(self, watchdog: Watchdog, watch: Callable[[], object]) -> None:
        """End everything if the data owner says so or a limit is broken."""
        try:
            watch()
        except BaseException:
            self.stop()
            raise
        breach = watchdog.breach()
        self.report.peak_memory_bytes = watchdog.peak_memory_bytes
        if breach is not None:
            self.stop()
            self.report.stopped = breach
            raise TrainingError(
                f"The training was ended: {breach}",
                kept="Nothing was sent",
                todo="ask the researcher for less, or raise the limit in domain.yaml (resources, policy)",
            )

    def stop(self) -> None:
        """End the worker and every process it started."""
        end_tree(self._process.pid, own_namespace="bubblewrap" in self.sandbox.walls)
        self._process.wait(timeout=30)
        self._log.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _next_event(self, seconds: float) -> dict[str, Any] | None:
        """Return the next event, or None if there is none for so long.

        Raises
        ------
        TrainingError
            If the worker has ended.
        """
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return None
        if event is None:
            self.stop()
            todo = "the data owner looks with `fedpriv domain log FOLDER ID`, then `fedpriv study resume`"
            raise TrainingError("The training worker ended unexpectedly", todo=todo)
        return event

    def _read_events(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with stream:
                while line := stream.readline(_MAX_LINE):
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue  # a stray print of a library is not an event
                    if isinstance(event, dict):
                        self._events.put(event)
        self._events.put(None)
