"""What a domain waits for, and since when: every wait has a name, so that nobody wonders whether it hangs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpriv.domain.folder import DomainFolder
from fedpriv.domain.requests import RequestBook
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import FedprivError


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One thing that is waited for.

    Attributes
    ----------
    who : str
        ``you``, or ``the researcher``.
    what : str
        What they do next, in words.
    since_s : float
        Seconds since the epoch.
    """

    who: str
    what: str
    since_s: float


def waits(folder: DomainFolder, requests: RequestBook) -> Iterator[Wait]:
    """Yield what is waited for in each study that is neither turned down nor finished, oldest request first."""
    for study in requests.studies():
        decision = requests.decision(study)
        if decision.decision == "pending":
            try:
                stored = requests.get(study)
            except FedprivError as error:
                yield Wait(
                    who="you",
                    what=f"look at request {study[:12]}: {error.what}",
                    since_s=_changed_s(folder.requests / study),
                )
                continue
            title = stored.request.plan.title
            yield Wait(who="you", what=f"decide on request {study[:12]} ({title})", since_s=stored.received_s)
        elif decision.decision == "approved":
            yield from _of_approved(folder, study)


def _of_approved(folder: DomainFolder, study: str) -> Iterator[Wait]:
    last = StudyFolder(folder.study(study)).last_result()
    if last is None:
        since_s = _changed_s(folder.requests / study / "decision.json")
        yield Wait(who="the researcher", what=f"send the first ticket of study {study[:12]}", since_s=since_s)
        return
    signed, since_s = last
    kind, number = signed.payload["kind"], signed.payload["round"]
    if kind != "release":
        what = (
            f"send the next ticket of study {study[:12]}, after {kind} of round {number} ({signed.payload['status']})"
        )
        yield Wait(who="the researcher", what=what, since_s=since_s)


def _changed_s(path: Path) -> float:
    return path.stat().st_mtime
