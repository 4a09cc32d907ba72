"""Where a study is, as its folder tells, whether a process runs it or not."""

from __future__ import annotations

from typing import Any

from fedpriv.aggregation import Link
from fedpriv.files import stale_lock_pid
from fedpriv.researcher.steering import SteeringFile
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study.shard import ShardStatement


def status_of(folder: StudyFolder) -> dict[str, Any]:
    """Return the facts by name; see :meth:`fedpriv.researcher.Study.status`."""
    request = folder.submitted_copy() if folder.is_submitted else folder.draft()
    done = [n for n in range(1, request.plan.training.rounds + 1) if folder.is_finished(n)]
    keys, emails = folder.keys(), request.plan.emails
    lock = folder.lock_path
    return {
        "name": folder.root.name,
        "study": request.study,
        "submitted": folder.is_submitted,
        "edited": folder.is_edited(),
        "decisions": {email: decision.decision for email, decision in folder.decisions().items()},
        "rounds": request.plan.training.rounds,
        "finished_rounds": len(done),
        "finished": folder.record("finished") is not None,
        "excluded": {e: found.reason for e in emails if (found := folder.excluded(e)) is not None},
        "shards": {email: _about(shard) for email, shard in folder.shards().items()},
        "links": {e: link.model_dump() for e in emails if (link := folder.link(e)) != Link()},
        "key": "" if keys is None else f"generation {keys.generation}" + (", retired" if keys.redo_round else ""),
        "paused_after": SteeringFile(folder.state).read().paused_after,
        "running": lock.exists() and stale_lock_pid(lock) is None,
        "interrupted": stale_lock_pid(lock) is not None,
    }


def _about(shard: ShardStatement) -> str:
    """Return how much a domain said that it has: rounded down, and 0 for fewer than ten."""
    return f"about {shard.patients} patients, {shard.examples} examples to train on"
