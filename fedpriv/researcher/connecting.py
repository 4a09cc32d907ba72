"""Finding the domains of a cohort and waiting until they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedpriv.errors import StudyError
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import Identity, Plan

if TYPE_CHECKING:
    from fedpriv.transport import ResearcherSession

CONNECT_SECONDS = 120.0

OnWait = Callable[[str], None]


def find_cohort(researcher: Researcher, plan: Plan, on_wait: OnWait) -> dict[str, Identity]:
    """Return the public keys of all domains, which must be those that the plan pins."""
    found: dict[str, Identity] = {}

    def look() -> list[str]:
        for email in plan.emails:
            if email not in found:
                identity = researcher.identity_of(email, plan.fingerprint_of(email))
                if identity is not None:
                    found[email] = identity
        return [email for email in plan.emails if email not in found]

    _wait_until_none(look, "the public keys of", on_wait)
    return found


def connect_all(session: ResearcherSession, plan: Plan, on_wait: OnWait) -> None:
    """Wait until every domain answers."""
    _wait_until_none(lambda: [e for e in plan.emails if not session.connect(e)], "an answer of", on_wait)


def connect_enough(session: ResearcherSession, plan: Plan, folder: StudyFolder) -> None:
    """Wait until so many domains answer as a round of the plan needs, of those that are not excluded."""
    enough = plan.schedule.quorum or plan.schedule.buffer

    def missing() -> list[str]:
        active = folder.active(plan.emails)
        away = [email for email in active if not session.connect(email)]
        return away if enough is None or len(active) - len(away) < enough else []

    _wait_until_none(missing, "an answer of", lambda what: None)


def _wait_until_none(look: Callable[[], list[str]], what: str, on_wait: OnWait) -> None:
    deadline, told = time.monotonic() + CONNECT_SECONDS, 0.0
    while missing := look():
        now = time.monotonic()
        if now > deadline:
            raise StudyError(
                f"Waited {CONNECT_SECONDS:.0f} s for {what} {', '.join(missing)}",
                kept="Nothing was sent to it",
                todo="check that its service runs, that it pinned your fingerprint, and that both use the same store",
            )
        if now - told > 10:
            told = now
            on_wait(f"waiting for {what} {', '.join(missing)}")
        time.sleep(0.2)
