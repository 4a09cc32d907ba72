"""What a domain refused of its peers: told to people and to the ledger, but not without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fedpriv.domain.domain import Domain
from fedpriv.errors import FedprivError
from fedpriv.study import Ticket

NOTED = 100
"""Of one kind, one peer, and of tickets one study, one by one; of more, the 128th, the 256th and so on: a peer cannot
fill the ledger, and what is refused of one kind hides none of another."""


@dataclass(kw_only=True)
class Refusals:
    """Notes what was refused since the service was started.

    Parameters
    ----------
    domain : Domain
        Whose ledger it is.
    notify : Callable[[str], None]
        Called with one sentence for a person at the domain.
    """

    domain: Domain
    notify: Callable[[str], None]
    _counts: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def of_message(self, peer: str, reason: str) -> None:
        """Note a message, or keys, of a peer."""
        if count := self._counted("message", peer):
            self.domain.ledger.append("message.refused", peer=peer, reason=reason, count=count)
            self.notify(f"a message of {peer} was refused: {reason}")

    def of_job(self, peer: str, job: str, reason: str) -> None:
        """Note a job of a peer."""
        if count := self._counted("job", peer):
            self.domain.ledger.append("job.refused", job=job, peer=peer, reason=reason, count=count)
            self.notify(f"refused {job}: {reason}")

    def of_ticket(self, ticket: Ticket, error: FedprivError) -> None:
        """Note a ticket that was not carried out; a study is one researcher's."""
        if count := self._counted("ticket", ticket.study):
            facts = {"study": ticket.study, "ticket": ticket.kind, "round": ticket.round}
            self.domain.ledger.append("ticket.refused", **facts, reason=error.what, count=count)
            self.notify(f"study {ticket.study[:12]}: {ticket.kind} of round {ticket.round} not done: {error}")

    def _counted(self, *of: str) -> int:
        """Return how many there are of these, where this one is to be told; else 0."""
        self._counts[of] += 1
        count = self._counts[of]
        return count if count <= NOTED or count.bit_count() == 1 else 0
