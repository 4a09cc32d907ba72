"""How a study's request goes out to its cohort, once: nothing of it can be changed afterwards."""

from __future__ import annotations

from collections.abc import Callable

from fedpriv.errors import ExistsError
from fedpriv.researcher.connecting import connect_all, find_cohort
from fedpriv.researcher.courier import request_job_name
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.researcher.versions import require_same_protocol
from fedpriv.study import CodeRequest


def submit(folder: StudyFolder, researcher: Researcher, on_wait: Callable[[str], None]) -> str:
    """Send the draft in a folder to every domain and return the study id; see :meth:`fedpriv.researcher.Study.submit`.

    The folder counts as submitted at the very end: whoever was stopped on the way submits again, to the same domains.
    """
    if folder.is_submitted:
        raise ExistsError(
            f"The study {folder.root.name} was submitted already",
            kept="The domains keep the first submission",
            todo="run `fedpriv study run`, or make a new study",
        )
    request = folder.draft()
    _require_new(request, folder, researcher)
    researcher.publish_identity()
    cohort = find_cohort(researcher, request.plan, on_wait)
    require_same_protocol(researcher, cohort, request.plan.emails)
    session = researcher.session(cohort)
    connect_all(session, request.plan, on_wait)
    folder.keep_cohort(cohort)
    files = {name: text.encode() for name, text in request.files.items()}
    for email in request.plan.emails:
        session.submit(email, request_job_name(request.study), files, entrypoint="train.py")
    folder.freeze(request)
    return request.study


def _require_new(request: CodeRequest, folder: StudyFolder, researcher: Researcher) -> None:
    """Refuse a request that is another study's to the byte: to the domains it would be that study."""
    for root in sorted(researcher.studies.iterdir()):
        other = StudyFolder(root)
        if root != folder.root and other.is_submitted and other.submitted_id() == request.study:
            raise ExistsError(
                f"The study {root.name} has the same plan and code to the byte",
                kept="Nothing was sent",
                todo="go on with that one, or give this one another title or seed in its plan.yaml",
            )
