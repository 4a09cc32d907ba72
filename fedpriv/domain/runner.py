"""The runner: one training worker a study, in its sandbox, spoken to in JSON lines."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fedpriv.domain.sandbox import clean_environment, wrap
from fedpriv.errors import TrainingError
from fedpriv.files import private_folder

_READY_SECONDS = 180
_GRACE_SECONDS = 90
_MAX_LINE = 64 * 1024


class TrainingWorker:
    """A child process that keeps torch warm and forks a grandchild for each job.

    Assumption: the code it runs is untrusted. It gets no key and no ledger, a clean environment, its own process
    group, and (with bubblewrap) neither network nor a view of the domain's folder beyond what it needs.
    """

    def __init__(
        self,
        *,
        readable: Sequence[Path],
        workspace: Path,
        threads: int,
        sandbox: Literal["required", "preferred", "off"],
    ) -> None:
        private_folder(workspace)
        scratch = private_folder(workspace / "scratch")
        command, self.sandbox = wrap(
            [sys.executable, "-m", "fedpriv.training.worker"],
            mode=sandbox,
            readable=readable,
            writable=workspace,
        )
        self._numbers = itertools.count(1)
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log = (workspace / "worker.log").open("ab")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=clean_environment(threads, scratch),
            cwd=workspace,
            start_new_session=True,
        )
        threading.Thread(target=self._read_events, daemon=True).start()
        self._next_event(_READY_SECONDS, wanted="ready", number=None)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the worker, or of the sandbox around it."""
        return self._process.pid

    def run(self, job: dict[str, Any], *, max_seconds: float, on_step: Callable[[int, int], None]) -> None:
        """Run one job to its end.

        Raises
        ------
        TrainingError
            If the job failed, the worker died, or the job did not end in time (the worker is ended then).
        """
        number = str(next(self._numbers))
        line = json.dumps({"id": number, **job}, allow_nan=False) + "\n"
        try:
            stream = self._process.stdin
            if stream is None:
                raise BrokenPipeError
            stream.write(line.encode())
            stream.flush()
        except OSError as error:
            raise TrainingError(
                "The training worker is gone", kept="Nothing was sent", todo="it is started again"
            ) from error
        while True:
            event = self._next_event(max_seconds + _GRACE_SECONDS, wanted=None, number=number)
            match event.get("event"):
                case "progress":
                    on_step(int(event.get("step", 0)), int(event.get("steps", 0)))
                case "done":
                    return
                case "failed":
                    reason = str(event.get("reason", ""))[:300]
                    raise TrainingError(f"The training code failed: {reason}", kept="Nothing was sent")
                case _:
                    continue

    def stop(self) -> None:
        """End the worker and every process it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        self._log.close()

    def _next_event(self, seconds: float, *, wanted: str | None, number: str | None) -> dict[str, Any]:
        while True:
            try:
                event = self._events.get(timeout=seconds)
            except queue.Empty as error:
                self.stop()
                raise TrainingError(f"Training did not answer for {seconds:.0f} s and was ended") from error
            if event is None:
                raise TrainingError(
                    "The training worker ended unexpectedly", todo="see worker.log in the study's folder"
                )
            if (wanted is None or event.get("event") == wanted) and (
                number is None or event.get("id") in (number, None)
            ):
                return event

    def _read_events(self) -> None:
        stream = self._process.stdout
        while stream is not None:
            line = stream.readline(_MAX_LINE)
            if not line:
                break
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a stray print of the training code is not an event
            if isinstance(event, dict):
                self._events.put(event)
        self._events.put(None)
