"""What a task asks of an admission, answered; and which admissions it leaves out.

Mortality is death in the same hospital stay, from the first hours of it, as in the benchmark of Harutyunyan et al.
(Scientific Data 6:96, 2019), but for patients of every age and on hospital stays, not ICU stays. Chapters are those of
ICD-9-CM with its supplementary classifications. Readmission within 30 days is defined as in ClinicalBERT (Huang,
Altosaar and Ranganath, arXiv 1904.05342): an unplanned admission, newborns and deaths in hospital left out.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fedpriv.clinical.admissions import Admission, one_case
from fedpriv.clinical.notes import known_after
from fedpriv.clinical.rows import LeftOut
from fedpriv.errors import DataError
from fedpriv.study.task import ICD9_CHAPTERS, READMISSION_DAYS, Answer, TaskChoice

_UNPLANNED = ("EMERGENCY", "URGENT")
_DONOR = "ORGAN DONOR"
"""MIMIC-III admits organ donors anew after their death: the problem would be the answer."""


def answers_of(
    task: TaskChoice, admission: Admission, others: Sequence[Admission], tally: LeftOut
) -> tuple[Answer, ...] | None:
    """Return the answers to a task's questions, or None if the task leaves the admission out, which is counted.

    Parameters
    ----------
    others : sequence of Admission
        All of the same patient, by time.
    """
    reason = _left_out(task, admission)
    chapters = _chapters(admission, tally) if task.kind == "icd9_chapters" else set[str]()
    if task.kind == "icd9_chapters" and not chapters:
        reason = "admission without a diagnosis of a chapter"
    if reason:
        tally[reason] += 1
        return None
    match task.kind:
        case "language_modelling":
            return ()
        case "mortality":
            return (_word(admission.died is True),)
        case "icd9_chapters":
            return tuple(_word(name in chapters) for name in ICD9_CHAPTERS)
        case "readmission":
            return (_word(_came_back(admission, others)),)


def horizon(task: TaskChoice, admission: Admission) -> datetime.datetime | None:
    """Return the moment after which nothing may be known to a text of the task; None: all of the stay may.

    Mortality: the window's end. Readmission: the end of the day of discharge, since summaries have no hour. The codes
    of a stay are no later event, so that ICD-9 chapters have none.
    """
    if task.window is not None:
        return admission.admitted + datetime.timedelta(hours=task.window)
    if task.kind == "readmission" and admission.discharged is not None:
        return known_after(admission.discharged)
    return None


def chapter_of(code: str) -> str | None:
    """Return the chapter of an ICD-9-CM diagnosis code, with or without its dot; None if it is none."""
    plain = code.strip().upper().replace(".", "")
    if plain[:1] in ("E", "V") and plain[1:].isascii() and plain[1:].isdigit():
        return plain[0]
    if not (plain.isascii() and plain.isdigit() and 3 <= len(plain) <= 5):
        return None
    number = int(plain[:3])
    ranges = (name for name in ICD9_CHAPTERS if name[0].isdigit())
    return next((name for name in ranges if int(name[:3]) <= number <= int(name[4:])), None)


class AnswerCounts:
    """How often each answer was given, one side of a split; only the domain itself sees it."""

    def __init__(self, task: TaskChoice) -> None:
        self.task = task
        self._yes: Counter[str] = Counter()
        self.examples = 0

    @classmethod
    def of(cls, task: TaskChoice, examples: int, yes: Mapping[str, int]) -> AnswerCounts:
        """Return counts that were made before: so many examples, and how often each question has a yes."""
        counts = cls(task)
        counts.examples = examples
        counts._yes.update(yes)
        return counts

    def add(self, answers: Iterable[Answer]) -> None:
        """Count one example."""
        self.examples += 1
        self._yes.update(q for q, answer in zip(self.task.questions, answers, strict=True) if answer == "yes")

    @property
    def never(self) -> tuple[str, ...]:
        """The questions that nobody answered with yes."""
        return tuple(question for question in self.task.questions if not self._yes[question])

    def refuse_empty(self) -> None:
        """Refuse a training side from which nothing can be learned.

        Raises
        ------
        DataError
            If an answer of a yes/no task never occurs, or fewer than two chapters do.
        """
        questions = self.task.questions
        if not questions:
            return
        if len(questions) > 1:
            occur = len(questions) - len(self.never)
            wrong, counts = occur < 2, f"{occur} of {len(questions)} chapters occur"
        else:
            yes = self._yes.total()
            wrong, counts = yes in (0, self.examples), f"yes {yes}, no {self.examples - yes}"
        if wrong:
            raise DataError(
                f"The task {self.task.kind} has an empty class among {self.examples} training examples ({counts})",
                kept="Nothing was written",
                todo="use tables with more patients, or another task",
            )


def _word(yes: bool) -> Answer:
    return "yes" if yes else "no"


def _left_out(task: TaskChoice, admission: Admission) -> str:
    """Return why a task leaves an admission out, whatever its answer; empty if it does not."""
    if task.kind == "mortality":
        return _not_in_mortality(admission, task.window or 0)
    return _not_in_readmission(admission) if task.kind == "readmission" else ""


def _not_in_mortality(admission: Admission, hours: int) -> str:
    if admission.died is None:
        return "admission whose outcome is not recorded"
    if admission.discharged is None:
        return "admission without a time of discharge"
    if admission.discharged < admission.admitted + datetime.timedelta(hours=hours):
        return f"admission shorter than {hours} hours"
    return "organ donor after death" if _DONOR in one_case(admission.problem) else ""


def _not_in_readmission(admission: Admission) -> str:
    if admission.died is None:
        return "admission whose outcome is not recorded"
    if admission.died:
        return "admission that ended with death"
    if admission.discharged is None or admission.discharged < admission.admitted:
        return "admission without a time of discharge"
    return "newborn" if one_case(admission.kind) == "NEWBORN" else ""


def _came_back(admission: Admission, others: Sequence[Admission]) -> bool:
    left = admission.discharged
    limit = datetime.timedelta(days=READMISSION_DAYS)
    return left is not None and any(
        other.hadm_id != admission.hadm_id
        and one_case(other.kind) in _UNPLANNED
        and left <= other.admitted <= left + limit
        and _DONOR not in one_case(other.problem)
        for other in others
    )


def _chapters(admission: Admission, tally: LeftOut) -> set[str]:
    found = [chapter_of(coded.code) for coded in admission.diagnoses]
    if strange := found.count(None):
        tally["diagnosis code of no chapter"] += strange
    return {chapter for chapter in found if chapter is not None}
