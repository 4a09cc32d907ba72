"""Leaving a round without a sum: the adapter after it is the one before it."""

from __future__ import annotations

from dataclasses import dataclass

from fedpriv.domain.context import StudyContext
from fedpriv.domain.sealing import Sealing
from fedpriv.domain.study_folder import OpenedRound
from fedpriv.errors import RefusedError
from fedpriv.files import write_atomic
from fedpriv.protection import updates_digest
from fedpriv.study import Ticket


@dataclass(frozen=True)
class Skipping:
    """Skips rounds of one study at one domain: those that can never be summed, because a member of the sum is gone.

    *Guarantee*: what this domain confirmed in a skipped round enters no other sum, though that one was never made as
    far as it knows: the researcher may hold it. What it did not confirm may be carried on, and is never confirmed in
    the skipped round afterwards. No sum of the round is opened any more.
    """

    context: StudyContext

    def skip(self, ticket: Ticket) -> None:
        """Keep the adapter of the round before as the one after it, once.

        A later attempt does it anew: the sum of an earlier round was made again, too.

        Raises
        ------
        RefusedError
            If the round before is not opened here, or this round's sum is.
        """
        context, folder, number = self.context, self.context.folder, ticket.round
        opened = folder.opened(number)
        if opened is not None and opened.is_skipped and opened.attempt >= ticket.attempt:
            return
        if opened is not None and not opened.is_skipped and opened.attempt >= ticket.attempt:
            raise RefusedError(f"The sum of round {number} was opened here", kept="The adapter moved by it stays")
        if number == 0 or (number > 1 and folder.opened(number - 1) is None):
            raise RefusedError(f"This domain has not opened the sum of round {number - 1}", kept="Nothing was skipped")
        scales = context.scales(number)
        write_atomic(folder.adapter(number), folder.adapter(number - 1).read_bytes())
        memory = folder.server_state(number - 1)
        if memory.exists():
            write_atomic(folder.server_state(number), memory.read_bytes())
        context.ledger.append(
            "round.skipped",
            once=f"{context.study}/skip/{number}/{ticket.attempt}",
            study=context.study,
            round=number,
            attempt=ticket.attempt,
            confirmed=any(folder.confirmed(number, attempt) for attempt in folder.attempts(number)),
        )
        record = OpenedRound(
            attempt=ticket.attempt,
            members=(),
            updates_sha256=updates_digest(()),
            adapter_sha256=context.adapter_digest(number),
            scales=scales,
        )
        folder.keep_opened(number, record)  # from here on the round counts as skipped
        Sealing(context).forget(number)
