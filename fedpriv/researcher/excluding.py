"""Going on without a domain that disappeared, and taking it in again: small files that a running study notices."""

from __future__ import annotations

from fedpriv.errors import InputError, StudyError
from fedpriv.files import folder_lock
from fedpriv.researcher.ending import require_unfinished, result_of
from fedpriv.researcher.records import Exclusion
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import Plan


def exclude(folder: StudyFolder, email: str, reason: str) -> str:
    """Note that a domain is not waited for; see :meth:`fedpriv.researcher.Study.exclude`."""
    plan = folder.submitted().plan
    lock = folder_lock(folder.state / "exclude.lock", holder="The list of excluded domains", todo="try again")
    with lock:
        _require_member(email, plan)
        if folder.excluded(email) is None:
            _require_dispensable(folder, email, plan)
            folder.exclude(Exclusion(email=email, reason=" ".join(reason.split())[:500]))
    return "" if result_of(folder) is not None else _still_needed(folder, email, plan)


def readmit(folder: StudyFolder, email: str) -> None:
    """Take that back; see :meth:`fedpriv.researcher.Study.readmit`."""
    _require_member(email, folder.submitted().plan)
    folder.readmit(email)


def skippable_round(folder: StudyFolder) -> int:
    """Return the round that only waits for who was excluded; see :meth:`fedpriv.researcher.Study.skip_round`."""
    require_unfinished(folder)
    number = _round_at_work(folder, folder.submitted().plan)
    if number is None or folder.last_begun() < number:
        raise StudyError("No round is at work", kept="Nothing was skipped", todo="see `fedpriv study status`")
    if folder.manifest(number) is not None:
        raise StudyError(
            f"Round {number} is summed already", kept="Nothing was skipped", todo="run `fedpriv study resume`"
        )
    decided = folder.sum_members(number)
    if not decided or not any(folder.excluded(email) for email in decided[0].members):
        raise StudyError(
            f"Round {number} does not need anybody who was excluded",
            kept="Nothing was skipped",
            todo="exclude the domain that is gone for good; often that is enough",
        )
    return number


def _require_member(email: str, plan: Plan) -> None:
    if email not in plan.emails:
        todo = f"choose one of {', '.join(plan.emails)}"
        raise InputError(f"{email} is not in the cohort of this study", kept="Nothing was changed", todo=todo)


def _require_dispensable(folder: StudyFolder, email: str, plan: Plan) -> None:
    remaining = [other for other in folder.active(plan.emails) if other != email]
    if len(remaining) < 2:
        raise StudyError(
            f"Without {email} fewer than two domains would remain",
            kept="Nobody was excluded",
            todo="start its service again, or make a new study",
        )
    keys = folder.keys()
    if email == plan.key_maker and (keys is None or keys.redo_round):
        raise StudyError(
            f"{email} makes the study's key, which the other domains do not hold yet",
            kept="Nobody was excluded",
            todo="start its service again, or make a new study without it",
        )


def _still_needed(folder: StudyFolder, email: str, plan: Plan) -> str:
    """Return why the round at work waits for a domain although it is excluded, or nothing."""
    number = _round_at_work(folder, plan)
    decided = None if number is None else folder.sum_members(number)
    if not decided or email not in decided[0].members or folder.manifest(number or 0) is not None:
        return ""
    return (
        f"Round {number} waits for {email} all the same: a domain confirms one set of members a round, "
        f"and they were shown one that {email} is in; that sum opens only with the answer of each. "
        "Start its service again; its folder holds all that it needs. Later rounds go on without it. "
        f"If it is gone for good, leave the round without a sum: `fedpriv study skip {folder.root.name}`."
    )


def _round_at_work(folder: StudyFolder, plan: Plan) -> int | None:
    """Return the first round that is not finished, or None."""
    numbers = range(1, plan.training.rounds + 1)
    return next((number for number in numbers if not folder.is_finished(number)), None)
