"""Sealing a round's update: once for each attempt, from the one training output of the round, and publishing it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from fedpriv.domain.context import StudyContext
from fedpriv.domain.study_folder import SealedParts, SealedRound
from fedpriv.domain.updates import TrainedUpdate, Updates
from fedpriv.errors import ContainerError, RefusedError
from fedpriv.files import canonical_json, file_sha256, sha256_hex
from fedpriv.protection import scales_digest, sealer_for, sign_update
from fedpriv.study import BlobRef, SignedUpdate, Ticket, UpdateHeader
from fedpriv.study.averaging import alike
from fedpriv.training.adapter import layout_digest

_MUCH_CLIPPED = 0.01


@dataclass(frozen=True)
class Sealing:
    """Seals and publishes the updates of one study at one domain."""

    context: StudyContext

    def seal(self, ticket: Ticket) -> SignedUpdate:
        """Seal this round's update once for this attempt; a restart finds the sealed container and its signed header.

        *Guarantee*: all attempts of a round seal the same change with the same weight, so that no two sums differ by
        more than rounding.

        Parameters
        ----------
        ticket : Ticket
            Of kind ``train`` or ``seal``, with weight and members. The update was kept (:class:`Updates`).

        Raises
        ------
        RefusedError
            If another weight was asked for in this round before, or the update is not here or is in another sum.
        """
        context = self.context
        weight = self._weight(ticket)
        sealed = context.folder.sealed(ticket.round, ticket.attempt)
        if sealed is None:
            parts = self._parts(ticket)
            context.show("sealing", ticket.round)
            with context.timed("seal"):
                sealed = self._seal_now(ticket, weight, parts)
            context.folder.keep_sealed(sealed)
            self._warn(sealed)
        self._record(sealed)
        return sealed.update

    def publish(self, update: SignedUpdate) -> BlobRef:
        """Leave a sealed update with the researcher."""
        context, header = self.context, update.header
        context.limits()  # an approval that was withdrawn in the meantime keeps it here
        context.show("publishing", header.round)
        with context.timed("transfer"):
            path, name = (
                context.folder.sealed_path(header.round, header.attempt),
                self._name(header.round, header.attempt),
            )
            if file_sha256(path) != update.container_sha256:
                raise ContainerError("The sealed update on this domain's disk was changed", kept="It was not sent")
            with context.traffic.up(update.container_bytes):
                moved = context.moved("publishing", header.round)
                return context.blobs.send(context.researcher, name, path, on_moved=moved)

    def forget(self, round_number: int) -> None:
        """Remove the sealed updates of a round whose sum was opened, and residuals that no attempt needs any more."""
        context = self.context
        for attempt in context.folder.attempts(round_number):
            if context.folder.sealed(round_number, attempt) is not None:
                context.blobs.remove(context.researcher, self._name(round_number, attempt))
            context.folder.sealed_path(round_number, attempt).unlink(missing_ok=True)
        for number in range(1, context.last_sum(round_number)):
            if not alike(context.plan.averaging, number, round_number):
                continue  # what rounds of other tensors need is theirs to remove
            for attempt in context.folder.attempts(number):
                context.folder.residual_path(number, attempt).unlink(missing_ok=True)
        Updates(context).forget(context.last_sum(round_number))

    def _weight(self, ticket: Ticket) -> float:
        if ticket.weight is None:
            raise RefusedError("The ticket does not say this member's weight", kept="Nothing was sealed")
        if not self.context.folder.claim(f"weight-{ticket.round:04d}", sha256_hex(canonical_json(ticket.weight))):
            raise RefusedError(
                f"Another weight was asked for in round {ticket.round} before",
                kept="The first one stands; nothing was sealed",
            )
        return ticket.weight

    def _bits(self, ticket: Ticket) -> int:
        """Return the bits of a ticket's round: the plan's, or one of its choices.

        Raises
        ------
        RefusedError
            If the plan does not provide for them.
        """
        protection = self.context.plan.protection
        bits = ticket.bits or protection.bits
        if bits not in (protection.bits, *protection.bits_choices):
            raise RefusedError(f"The plan does not provide for a round of {bits} bits", kept="Nothing was sealed")
        return bits

    def _parts(self, ticket: Ticket) -> SealedParts:
        """Return what this round's update is made of, decided when it was sealed first and the same ever since."""
        folder, updates = self.context.folder, Updates(self.context)
        own = updates.trained_for(ticket.trained or ticket.round)
        parts = folder.parts(ticket.round, own.start)
        if parts is None:
            late = updates.late(ticket.round)
            parts = SealedParts(parts=tuple((update.round, update.start) for update in (own, *late)))
            folder.keep_parts(ticket.round, own.start, parts)
        for number, start in parts.parts:
            updates.claim(TrainedUpdate(round=number, start=start), ticket.round)
        return parts

    def _change(self, ticket: Ticket, parts: SealedParts) -> np.ndarray:
        """Return what is sealed: the round's own update, and what missed earlier rounds, the older the less of it."""
        updates, schedule = Updates(self.context), self.context.plan.schedule
        (number, start), *late = parts.parts
        change = updates.read(TrainedUpdate(round=number, start=start))
        for number, start in late:
            part = updates.read(TrainedUpdate(round=number, start=start))
            change += np.float32(schedule.discount(ticket.round - number)) * part
        return change

    def _seal_now(self, ticket: Ticket, weight: float, parts: SealedParts) -> SealedRound:
        context, folder = self.context, self.context.folder
        update = self._change(ticket, parts)
        key = context.key_room.load()
        masks = context.masks(ticket.members)
        scales = context.scales(ticket.round)
        header = UpdateHeader(
            study=ticket.study,
            round=ticket.round,
            attempt=ticket.attempt,
            member=context.member,
            cohort=masks.cohort,
            level=context.plan.protection.level,
            bits=self._bits(ticket),
            weight=weight,
            nonce=secrets.token_hex(16),
            key_id=key.key_id,
            layout=layout_digest(context.sent_layout(ticket.round)),
            scales=scales_digest(scales),
            parameters=len(update),
        )
        sealer = sealer_for(
            context.plan.protection,
            key,
            context.tensors(),
            turns=context.turns(),
            masks=masks,
            workers=context.workers(),
            # Rounding hides nothing: the same study with the same seed rounds alike, whoever was killed in between.
            seed=(context.plan.training.seed, ticket.round, context.plan.emails.index(context.member)),
        )
        file = sealer.seal(
            header,
            update,
            folder.sealed_path(ticket.round, ticket.attempt),
            scales=scales,
            residual=context.residual(ticket.round),
            residual_out=folder.residual_path(ticket.round, ticket.attempt),
        )
        signed = sign_update(context.keys, header, file.sha256, file.size_bytes)
        clipped = round(file.clipped / len(update), 3)
        carried = tuple(number for number, _ in parts.parts[1:])
        return SealedRound(update=signed, members=ticket.members, clipped=clipped, carried=carried)

    def _record(self, sealed: SealedRound) -> None:
        context, header = self.context, sealed.update.header
        context.ledger.append(
            "update.sealed",
            once=f"{header.study}/seal/{header.round}/{header.attempt}",
            study=header.study,
            round=header.round,
            attempt=header.attempt,
            container_sha256=sealed.update.container_sha256,
            container_bytes=sealed.update.container_bytes,
            level=header.level,
            weight=header.weight,
            members=list(sealed.members),
            key_id=header.key_id,
            clipped=sealed.clipped,
            **({"carried": list(sealed.carried)} if sealed.carried else {}),
        )

    def _warn(self, sealed: SealedRound) -> None:
        context, header = self.context, sealed.update.header
        if sealed.clipped > _MUCH_CLIPPED:
            context.notify(
                f"study {header.study[:12]}: {sealed.clipped:.1%} of round {header.round}'s update were over the clip; "
                "what was cut off is sent in later rounds (a larger protection > clip in the plan loses less time)"
            )

    def _name(self, round_number: int, attempt: int) -> str:
        return f"update-{self.context.study[:16]}-{round_number:04d}-{attempt}"
