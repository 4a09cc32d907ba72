"""What a domain waits for, and since when: every wait has a name, so that nobody wonders whether it hangs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpriv.domain.approval import opens_in
from fedpriv.domain.folder import DomainFolder
from fedpriv.domain.requests import RequestBook
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import FedprivError
from fedpriv.study import Limits


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One thing that is waited for.

    Attributes
    ----------
    who : str
        ``you``, ``the researcher``, or ``the approved hours`` of the domain.
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
        elif decision.limits is not None:
            yield from _of_approved(folder, requests, study, decision.limits)


def _of_approved(folder: DomainFolder, requests: RequestBook, study: str, limits: Limits) -> Iterator[Wait]:
    place = StudyFolder(folder.study(study))
    last, hours = place.last_result(), place.hours_waited_for()
    if hours is not None and hours[0]["hours"] == limits.hours and opens_in(limits) > 0.0:
        ticket, since_s = hours
        of_round = f" of round {ticket['round']}" if ticket["round"] else ""
        what = f"begin ({limits.hours}), for {ticket['kind']}{of_round} of study {study[:12]}"
        yield Wait(who="the approved hours", what=what, since_s=since_s)
        return
    if last is None:
        since_s = _changed_s(folder.requests / study / "decision.json")
        yield Wait(who="the researcher", what=f"send the first ticket of study {study[:12]}", since_s=since_s)
        return
    signed, since_s = last
    kind, number = signed.payload["kind"], signed.payload["round"]
    asked = requests.release(study)
    if asked is not None and asked.decision == "pending" and not limits.release:
        yield Wait(who="you", what=f"release or withhold the adapter of study {study[:12]}", since_s=asked.asked_s)
    elif kind not in ("consent", "release"):
        what = (
            f"send the next ticket of study {study[:12]}, after {kind} of round {number} ({signed.payload['status']})"
        )
        yield Wait(who="the researcher", what=what, since_s=since_s)


def _changed_s(path: Path) -> float:
    return path.stat().st_mtime
