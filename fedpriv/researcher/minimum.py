"""How many domains a round must have: what data owners approved with is looked at before a round begins."""

from __future__ import annotations

from collections.abc import Sequence

from fedpriv.errors import StudyError
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import Ticket


class Minimum:
    """The fewest domains that the data owners of a study allow in a round and a sum, as their decisions say.

    A domain sees to it itself, too, and refuses; to know it beforehand is to begin no round that can never be summed.
    """

    def __init__(self, folder: StudyFolder, courier: Courier) -> None:
        self._folder, self._courier = folder, courier

    def of(self, members: Sequence[str]) -> int:
        """Return the largest number that one of these wants; 2 where none is known."""
        return max(self._wanted(members).values(), default=2)

    async def require(self, number: int, members: Sequence[str]) -> None:
        """Stop before a round that a member would refuse, after a look at what its data owner says by now.

        Raises
        ------
        StudyError
            Naming whose limit it is.
        """
        for email, least in self._wanted(members).items():
            if least > len(members):
                decision = await self._courier.decision_of(email)
                if decision is not None and decision.decision == "approved":
                    self._folder.keep_decision(decision)
        wanted = {email: least for email, least in self._wanted(members).items() if least > len(members)}
        if not wanted:
            return
        whose = ", ".join(f"that of {email} wants {least}" for email, least in sorted(wanted.items()))
        raise StudyError(
            f"Round {number} would have {len(members)} domains, and data owners want more in every sum: {whose}",
            kept="The round was not begun with so few; the rounds before are kept",
            todo="wait for the domains that are away, take in again who was excluded (`fedpriv study readmit`), or ask "
            f"for an approval with --minimum-cohort {len(members)}, where policy > minimum_cohort of domain.yaml "
            "goes so far; then run `fedpriv study resume`",
        )

    def was_refused(self, number: int, attempt: int) -> bool:
        """Say whether nobody sealed in an attempt of a round, or still may, because those who were asked refused."""
        said: list[str] = []
        for email in self._courier.plan.emails:
            for kind in ("train", "seal"):
                ticket = Ticket(study=self._courier.study, kind=kind, round=number, attempt=attempt, member=email)
                while (sent := self._folder.sent_ticket(ticket)) is not None:
                    if sent.members:
                        result = self._folder.result(ticket)
                        said.append("silent" if result is None else result.status)
                    ticket = ticket.model_copy(update={"retry": ticket.retry + 1})
        return "refused" in said and not {"silent", "done"} & set(said)

    def _wanted(self, members: Sequence[str]) -> dict[str, int]:
        decisions = {email: self._folder.decision(email) for email in members}
        return {e: d.limits.minimum_cohort for e, d in decisions.items() if d is not None and d.limits is not None}
