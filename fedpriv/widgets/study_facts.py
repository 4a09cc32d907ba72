"""What a screen shows of a study beside its events: what is on disk, and whether a process runs it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpriv.domain.approval import limits_in_words
from fedpriv.errors import FedprivError, StudyError
from fedpriv.files import stale_lock_pid
from fedpriv.researcher.study import Study
from fedpriv.study import Plan
from fedpriv.widgets.draft import Sizes, sizes_of
from fedpriv.widgets.study_process import last_error

_LEAST_ROOM_BYTES = 16 * 2**20
"""Free bytes of the study's disk below which a round may not be kept, nor the sentence that says so."""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """A study's files at a moment; cheap to make again, whatever the number of rounds.

    Attributes
    ----------
    plan : Plan or None
        As it stands; None where it cannot be read, and ``problem`` says why.
    problem : str
        What is wrong with the study's files, or what its last run ended with.
    submitted, running, interrupted, finished : bool
        Whether data owners have it; a process runs it; the last one was killed; the last sum was opened.
    paused_after : int or None
        The last round before it pauses.
    alpha, patience_s : float and int or None
        What the researcher asked for in place of the plan's.
    limits : mapping of str to tuple of str
        What each domain approved, in words.
    patients : mapping of str to int
        Of each domain, as it said: rounded down.
    sizes : Sizes or None
        What updates weigh.
    """

    plan: Plan | None = None
    problem: str = ""
    submitted: bool = False
    running: bool = False
    interrupted: bool = False
    finished: bool = False
    paused_after: int | None = None
    alpha: float | None = None
    patience_s: int | None = None
    limits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patients: Mapping[str, int] = field(default_factory=dict)
    sizes: Sizes | None = None


class FactsReader:
    """Reads a study's facts again and again; what is costly only when its file changed.

    Assumption: called from one thread.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._sizes: tuple[Plan, Sizes | None] | None = None

    def read(self) -> StudyFacts:
        """Return the facts of this moment; a file that cannot be read becomes the ``problem``."""
        study, folder = self._study, self._study.folder
        try:
            plan = study.plan
            steering = study.steering.read()
            dead = stale_lock_pid(folder.lock_path)
            running = folder.lock_path.exists() and dead is None
            decisions = folder.decisions()
            return StudyFacts(
                plan=plan,
                problem=self._no_room() or ("" if running else last_error(study)),
                submitted=folder.is_submitted,
                running=running,
                interrupted=dead is not None,
                finished=folder.record("finished") is not None,
                paused_after=steering.paused_after,
                alpha=steering.alpha,
                patience_s=steering.patience_s,
                limits={e: tuple(limits_in_words(d.limits)) for e, d in decisions.items() if d.limits is not None},
                patients={email: shard.patients for email, shard in folder.shards().items()},
                sizes=self._sizes_of(plan),
            )
        except (FedprivError, OSError, ValueError) as error:
            return StudyFacts(problem=str(error))

    def _no_room(self) -> str:
        """Return a sentence where the disk is nearly full: the run's own error may not have been written any more."""
        root = self._study.folder.root
        free = shutil.disk_usage(root).free
        if free >= _LEAST_ROOM_BYTES:
            return ""
        return str(
            StudyError(
                f"The disk of {root} is full: {free // 1024:,} KiB are free",
                kept="What was done is kept",
                todo="make room, then start again; nothing is trained twice",
            )
        )

    def _sizes_of(self, plan: Plan) -> Sizes | None:
        if self._sizes is None or self._sizes[0] != plan or self._sizes[1] is None:
            self._sizes = (plan, sizes_of(plan))
        return self._sizes[1]
