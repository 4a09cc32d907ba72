"""Confirming: a domain agrees to one set of updates in a round, gives what opens their sum, and no other set ever."""

from __future__ import annotations

from dataclasses import dataclass

from fedpriv.domain.context import StudyContext
from fedpriv.domain.study_folder import ConfirmedRound, SealedRound
from fedpriv.domain.updates import Updates
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import needs_unlock, updates_digest, verify_manifest, verify_updates
from fedpriv.study import AggregateManifest, SignedUpdate, Ticket
from fedpriv.study.messages import Unlock

_KEPT = "Nothing was unlocked"


@dataclass(frozen=True)
class Confirming:
    """What one domain agreed to have added in one study.

    *Guarantee*: in one attempt of a round it unlocks one set of updates, and in all attempts of a round updates of one
    set of members, more than half of those who sealed: two sums over different sets would give away their difference,
    and two disjoint ones the sums of small groups. No member counts nearly alone in it.
    """

    context: StudyContext

    def confirm(self, ticket: Ticket) -> Unlock | None:
        """Check exactly which updates will be added, claim them, and return this member's unlock of their sum.

        Returns
        -------
        Unlock or None
            None where the plan's levels have no masks; the same ticket always gives the same.

        Raises
        ------
        RefusedError
            If this domain sealed nothing for it, was asked for another set before, or there are too few members.
        UntrustedError
            If the updates are not what members of this round signed, or this domain's own is not among them.
        """
        context = self.context
        sealed = self._sealed(ticket)
        members = self._verify(ticket, sealed)
        digest = updates_digest(ticket.updates)
        self._claim(ticket, members, digest)
        context.ledger.append(
            "update.confirmed",
            once=f"{ticket.study}/confirm/{ticket.round}/{ticket.attempt}",
            study=ticket.study,
            round=ticket.round,
            attempt=ticket.attempt,
            members=list(members),
            updates_sha256=digest,
        )
        record = ConfirmedRound(members=members, updates_sha256=digest)
        context.folder.keep_confirmed(ticket.round, ticket.attempt, record)
        if not needs_unlock(context.plan.protection):
            return None
        return context.masks(sealed.members).unlock(ticket.updates)

    def require_confirmed(self, manifest: AggregateManifest) -> None:
        """Check that a sum is one that this domain agreed to; or, if it was not asked, that enough others are in it.

        Raises
        ------
        UntrustedError, RefusedError
            If it is another sum.
        """
        context = self.context
        members = tuple(update.header.member for update in manifest.updates)
        verify_manifest(
            manifest,
            context.folder.identities(),
            study=context.study,
            round=manifest.round,
            attempt=manifest.attempt,
            expected_members=members,
        )
        strangers = sorted(set(members) - set(context.plan.emails))
        if strangers:
            raise UntrustedError(f"{', '.join(strangers)} is not in the plan's cohort", kept="It was not opened")
        confirmed = context.folder.confirmed(manifest.round, manifest.attempt)
        if confirmed is not None:
            if updates_digest(manifest.updates) != confirmed.updates_sha256:
                raise UntrustedError("The sum holds other updates than this domain confirmed", kept="It was not opened")
            return
        earlier = (context.folder.confirmed(manifest.round, a) for a in context.folder.attempts(manifest.round))
        if context.member in members or any(earlier):
            raise UntrustedError("The sum was not confirmed by this domain", kept="It was not opened")
        limit = context.minimum_cohort()
        if len(members) < limit:
            raise RefusedError(
                f"The sum holds {len(members)} updates; this domain's data owner wants {limit}",
                kept="It was not opened",
            )
        self._require_balance(manifest.updates, kept="It was not opened")

    def _sealed(self, ticket: Ticket) -> SealedRound:
        context = self.context
        opened = context.folder.opened(ticket.round)
        if opened is not None and opened.is_skipped:
            raise RefusedError(f"Round {ticket.round} was skipped here", kept=_KEPT)
        sealed = context.folder.sealed(ticket.round, ticket.attempt)
        if sealed is None:
            raise RefusedError(
                f"This domain sealed nothing in attempt {ticket.attempt} of round {ticket.round}", kept=_KEPT
            )
        if sealed.update.header.key_id != context.key_room.load().key_id:
            raise RefusedError("The updates were sealed for a study key that was retired since", kept=_KEPT)
        return sealed

    def _verify(self, ticket: Ticket, sealed: SealedRound) -> tuple[str, ...]:
        """Return the members of the sum after checking every update in it."""
        context = self.context
        members = tuple(sorted(update.header.member for update in ticket.updates))
        if sealed.update not in ticket.updates:
            raise UntrustedError("This domain's own update is not among those to be added", kept=_KEPT)
        strangers = sorted(set(members) - set(sealed.members))
        if strangers:
            raise UntrustedError(f"{', '.join(strangers)} did not seal with this domain", kept=_KEPT)
        limit = context.minimum_cohort()
        if len(members) < limit:
            raise RefusedError(
                f"Only {len(members)} updates would be added; this domain's data owner wants {limit}",
                kept=_KEPT,
                todo="wait for the other domains",
            )
        if 2 * len(members) <= len(sealed.members):
            raise RefusedError(
                f"Only {len(members)} of {len(sealed.members)} that sealed would be in the sum",
                kept=_KEPT,
                todo="more than half must be, so that no round has two sums over different members",
            )
        verify_updates(
            ticket.updates,
            context.folder.identities(),
            study=context.study,
            round=ticket.round,
            attempt=ticket.attempt,
            expected_members=members,
        )
        Updates(context).require_unmoved(ticket.round)
        _require_different_containers(ticket.updates)
        self._require_balance(ticket.updates, kept=_KEPT)
        return members

    def _require_balance(self, updates: tuple[SignedUpdate, ...], *, kept: str) -> None:
        """Refuse a sum that is nearly one domain's update because the others hardly count in it."""
        weights = [update.header.weight for update in updates]
        share, limit = max(weights) / sum(weights), self.context.config.policy.largest_share
        if share > limit:
            raise RefusedError(
                f"One domain's weight is {share:.0%} of the sum; this domain's policy allows {limit:.0%}",
                kept=kept,
                todo="ask for other weights in a new study, or ask the data owner to allow it in domain.yaml",
            )

    def _claim(self, ticket: Ticket, members: tuple[str, ...], digest: str) -> None:
        folder, name = self.context.folder, f"confirm-{ticket.round:04d}"
        if not folder.claim(f"{name}-members", sha256_hex(canonical_json(list(members)))):
            raise RefusedError(
                f"Other members were confirmed in round {ticket.round} before",
                kept="The first set stands; nothing was unlocked",
                todo="sum the round again with exactly the members that were confirmed first",
            )
        if not folder.claim(f"{name}-{ticket.attempt}", digest):
            raise RefusedError(
                f"Other updates were confirmed in attempt {ticket.attempt} of round {ticket.round} before",
                kept="The first ones stand; nothing was unlocked",
                todo="send the same confirm ticket again",
            )


def _require_different_containers(updates: tuple[SignedUpdate, ...]) -> None:
    if len({update.container_sha256 for update in updates}) != len(updates):
        raise UntrustedError("One container stands among the updates twice", kept=_KEPT)
