"""The end of a study: its result as it was kept, and that nothing of it is changed afterwards."""

from __future__ import annotations

from pydantic import TypeAdapter

from fedpriv.errors import StudyError
from fedpriv.researcher.events import StudyFinished
from fedpriv.researcher.study_folder import StudyFolder


def result_of(folder: StudyFolder) -> StudyFinished | None:
    """Return how a study ended, as it was kept; None while it goes on."""
    record = folder.record("finished")
    return None if record is None else TypeAdapter(StudyFinished).validate_python(record)


def require_unfinished(folder: StudyFolder) -> None:
    """Refuse to steer the rounds of a study when they are over: its record says how it was.

    Who is not waited for may be said all the same: a release asks the others, and its card names who was in the sums.

    Raises
    ------
    StudyError
        If it is finished.
    """
    if folder.record("finished") is not None:
        raise StudyError(
            "The study is finished",
            kept="Nothing was changed",
            todo=f"ask for its adapter with `fedpriv study release {folder.root.name}`, or make a new study",
        )


def members_of_sums(folder: StudyFolder, rounds: int) -> tuple[str, ...]:
    """Return every domain whose update entered a sum of a study, sorted: the adapter is theirs, too."""
    manifests = (folder.manifest(number) for number in range(1, rounds + 1))
    updates = (update for manifest in manifests if manifest is not None for update in manifest.updates)
    return tuple(sorted({update.header.member for update in updates}))
