"""The release of the adapter: asked for by the researcher, decided by people, and done when enough domains consent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fedpriv.domain.context import StudyContext
from fedpriv.domain.privacy_budget import PrivacyBudget, delta_of
from fedpriv.domain.requests import ReleaseDecision, RequestBook
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.protection import open_signed, sign
from fedpriv.study import Consent, Ticket


@dataclass(frozen=True)
class Releasing:
    """Asks for, gives and checks consent, and hands over the adapter of one study at one domain.

    Attributes
    ----------
    requests : RequestBook
        Where the data owner's decision on the release lies.
    """

    context: StudyContext
    requests: RequestBook

    def is_undecided(self, ticket: Ticket) -> bool:
        """Say whether a consent ticket still waits for the data owner; the first time, the question is recorded.

        Raises
        ------
        RefusedError
            If there is no such adapter here.
        """
        context, digest = self.context, self._digest(ticket)
        known = self.requests.release(ticket.study)
        if known is None or known.adapter_sha256 != digest:
            known = ReleaseDecision(decision="pending", adapter_sha256=digest, asked_s=round(time.time(), 3))
            self.requests.decide_release(ticket.study, known)
            asked = context.ledger.append(
                "release.asked", once=f"{ticket.study}/asked/{digest}", study=ticket.study, adapter_sha256=digest
            )
            if asked and not context.limits().release:
                context.notify(
                    f"study {ticket.study[:12]}: the researcher asks for the adapter; decide with "
                    f"`fedpriv domain release` or `fedpriv domain withhold`"
                )
        return known.decision == "pending" and not context.limits().release

    def consent(self, ticket: Ticket) -> dict[str, Any]:
        """Return this domain's signed consent, if the data owner gives it.

        Raises
        ------
        RefusedError
            If the adapter is withheld, or nobody decided.
        """
        context, digest = self.context, self._digest(ticket)
        self._require_agreement(ticket, digest)
        context.ledger.append(
            "release.agreed", once=f"{ticket.study}/agreed/{digest}", study=ticket.study, adapter_sha256=digest
        )
        joined = [number for number in range(1, ticket.round + 1) if self._is_in(number)]
        charge = PrivacyBudget(context.ledger).last_charge(ticket.study) if context.plan.privacy else None
        consent = Consent(
            study=ticket.study,
            round=ticket.round,
            member=context.member,
            adapter_sha256=digest,
            rounds_joined=len(joined),
            epsilon=None if charge is None else charge.epsilon_study,
            delta=None if charge is None else delta_of(charge.patients),
            ledger_sha256=context.ledger.entries()[-1].digest,
        )
        return {"consent": sign(context.keys, "consent", consent), "adapter_sha256": digest}

    def hand_over(self, ticket: Ticket) -> dict[str, Any]:
        """Leave the adapter with the researcher, once enough domains have consented to exactly this one.

        Raises
        ------
        RefusedError
            If this data owner withholds it, or too few others consented.
        UntrustedError
            If a consent is not what a domain of the cohort signed for this adapter.
        """
        context, digest = self.context, self._digest(ticket)
        self._require_agreement(ticket, digest)
        members = sorted(self._verified(ticket, digest))
        quorum = self._quorum(ticket.round)
        if len(members) < quorum or context.member not in members:
            raise RefusedError(
                f"{len(members)} domains consent; this domain's policy wants {quorum}, itself among them",
                kept="The adapter stays at the domain",
                todo="wait for the other data owners (`fedpriv study release` asks them)",
            )
        with context.timed("transfer"):
            data = context.folder.adapter(ticket.round).read_bytes()
            blob = context.blobs.send(context.researcher, f"adapter-{ticket.study[:16]}", data)
        context.ledger.append(
            "adapter.released",
            once=f"{ticket.study}/release/{digest}",
            study=ticket.study,
            adapter_sha256=digest,
            consents=members,
        )
        return {"adapter_blob": blob, "adapter_sha256": digest}

    def _require_agreement(self, ticket: Ticket, digest: str) -> None:
        known = self.requests.release(ticket.study)
        if known is not None and known.adapter_sha256 == digest and known.decision == "withheld":
            raise RefusedError(
                f"The data owner withholds the adapter: {known.reason}",
                kept="The adapter stays at the domain",
                todo="talk to the data owner; with `fedpriv domain release` they can still hand it over",
            )
        agreed = known is not None and known.adapter_sha256 == digest and known.decision == "approved"
        if not (agreed or self.context.limits().release):
            raise RefusedError(
                "The data owner did not approve the release of the adapter",
                kept="The adapter stays at the domain",
                todo="ask the data owner to run `fedpriv domain release`",
            )

    def _verified(self, ticket: Ticket, digest: str) -> set[str]:
        """Return the members whose signed consent to this adapter the ticket brings."""
        identities = self.context.folder.identities()
        members = set()
        for signed in ticket.consents:
            email = str(signed.payload.get("member"))
            if email not in identities:
                raise UntrustedError("A consent is of nobody in the cohort", kept="Nothing was released")
            consent = open_signed(signed, kind="consent", identity=identities[email], model=Consent)
            if (consent.study, consent.round, consent.adapter_sha256) != (ticket.study, ticket.round, digest):
                raise UntrustedError(f"The consent of {email} is to another adapter", kept="Nothing was released")
            members.add(email)
        return members

    def _quorum(self, round_number: int) -> int:
        """Return how many domains must consent: the policy's number, else all whose update is in the last sum."""
        context = self.context
        rounds = (context.folder.opened(number) for number in range(round_number, 0, -1))
        sums = (opened for opened in rounds if opened is not None and not opened.is_skipped)
        last = next(sums, None)
        everybody = len(last.members) if last else len(context.plan.emails)
        return context.config.policy.release_quorum or everybody

    def _digest(self, ticket: Ticket) -> str:
        context = self.context
        if ticket.round != context.plan.training.rounds or not context.folder.adapter(ticket.round).exists():
            raise RefusedError("Only the adapter after the last round can be released", kept="Nothing was sent")
        return context.adapter_digest(ticket.round)

    def _is_in(self, round_number: int) -> bool:
        opened = self.context.folder.opened(round_number)
        return opened is not None and self.context.member in opened.members
