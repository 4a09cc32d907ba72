"""A dry run or an audit in a process of its own: it blocks nothing, shows how far it is, and outlives the notebook.

The process inherits the descriptor of a locked file, so that its lock lasts exactly as long as the process, also when
it is killed.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from fedpriv.domain import Domain, DomainFolder
from fedpriv.domain.finding import visible
from fedpriv.errors import FedprivError, LockError
from fedpriv.files import PRIVATE_FILE, read_json, stale_lock_pid, write_json
from fedpriv.widgets.owner_state import TrialKind, Trying

_PROGRESS, _LOCK, _LOG = "trying.json", "trying.lock", "trying.log"
_MOST_BYTES = 64 * 1024
Report = Callable[[str, int, int], None]
_NAMES: dict[TrialKind, str] = {"try": "dry run", "audit": "audit"}


def start_trial(domain: Domain, study: str, kind: TrialKind) -> subprocess.Popen[bytes]:
    """Start a dry run of a request, or an audit of what its updates would tell; it goes on when this process ends.

    Raises
    ------
    LockError
        If another one of this domain goes on.
    """
    state = domain.folder.state
    lock = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _take(lock)
        os.ftruncate(lock, 0)
        write_json(state / _PROGRESS, _told(study, kind), durable=False)
        log = os.open(state / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(domain.folder.root), study, kind],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
            )
        finally:
            os.close(log)
    finally:
        os.close(lock)


def _take(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockError(
            "A dry run or an audit of this domain goes on",
            kept="Nothing was changed",
            todo="wait until it is done and try again",
        ) from error


def trying(folder: DomainFolder) -> Trying | None:
    """Return what goes on or ended without a result, or None if there is neither."""
    running = (folder.state / _LOCK).exists() and stale_lock_pid(folder.state / _LOCK) is None
    try:
        found = read_json(folder.state / _PROGRESS, max_bytes=_MOST_BYTES)
        seen = Trying.model_validate({**found, "running": running})
    except (FileNotFoundError, FedprivError, ValueError, TypeError):
        return None
    if running or seen.problem:
        return seen
    lost = f"The {_NAMES[seen.kind]} ended without a result: its process was ended from outside. Next: start it again."
    return seen.model_copy(update={"problem": lost})


def _told(study: str, kind: TrialKind) -> dict[str, Any]:
    return {"study": study, "kind": kind, "started_s": round(time.time(), 3)}


def main(root: Path, study: str, kind: TrialKind) -> None:
    """Carry it out and write how far it is beside the domain's requests; its result is kept there, too."""
    domain = Domain.open(root)
    path = domain.folder.state / _PROGRESS
    told = _told(study, kind)

    def report(stage: str, done: int, total: int) -> None:
        write_json(path, {**told, "stage": stage, "step": done, "steps": total}, durable=False)

    try:
        _CARRY_OUT[kind](domain, study, report)
    except (FedprivError, OSError) as error:
        write_json(path, {**told, "problem": visible(str(error), 1000)})
    except Exception as error:
        traceback.print_exc()
        problem = (
            f"fedpriv itself made a mistake ({type(error).__name__}); {path.with_name(_LOG)} has the details. "
            f"Nothing was sent. Next: decide without this {_NAMES[kind]}, or report it."
        )
        write_json(path, {**told, "problem": problem})
    else:
        path.unlink(missing_ok=True)


def _dry_run(domain: Domain, study: str, report: Report) -> None:
    from fedpriv.domain.dry_run import dry_run

    dry_run(domain, domain.requests.get(study), lambda step, steps: report("training on made-up patients", step, steps))


def _audit(domain: Domain, study: str, report: Report) -> None:
    from fedpriv.audit import AuditChoice, audit_leakage, keep_audit

    keep_audit(domain.folder, audit_leakage(domain, domain.requests.get(study), AuditChoice(), report=report))


_CARRY_OUT: dict[TrialKind, Callable[[Domain, str, Report], None]] = {"try": _dry_run, "audit": _audit}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], cast("TrialKind", sys.argv[3]))
