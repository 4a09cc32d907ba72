"""Sealing a round's update: once for each attempt, from the one training output of the round, and publishing it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.domain.context import StudyContext
from fedpriv.domain.gatekeeper import check_update, privatise
from fedpriv.domain.privacy_budget import PrivacyBudget
from fedpriv.domain.study_folder import SealedRound
from fedpriv.errors import ContainerError, RefusedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import scales_digest, sealer_for, sign_update
from fedpriv.study import BlobRef, SignedUpdate, Ticket, UpdateHeader
from fedpriv.study.averaging import alike
from fedpriv.training.adapter import (
    adapter_digest,
    adapter_layout_digest,
    flatten,
    layout_of,
    load_state,
    save_state,
    unflatten,
)

_MUCH_CLIPPED = 0.01


@dataclass(frozen=True)
class Sealing:
    """Seals and publishes the updates of one study at one domain."""

    context: StudyContext

    def seal(self, ticket: Ticket, raw: Path) -> SignedUpdate:
        """Seal this round's update once for this attempt; a restart finds the sealed container and its signed header.

        *Guarantee*: all attempts of a round seal the same change with the same weight, so that no two sums differ by
        more than rounding.

        Parameters
        ----------
        ticket : Ticket
            Of kind ``train``, with weight and members.
        raw : Path
            The adapter after training, as the child wrote it.

        Raises
        ------
        RefusedError
            If another weight was asked for in this round before.
        GatekeeperError
            If the update may not leave.
        """
        context = self.context
        if ticket.weight is None:
            raise RefusedError("A train ticket must say this member's weight", kept="Nothing was sealed")
        work = sha256_hex(canonical_json(ticket.weight))
        if not context.folder.claim(f"weight-{ticket.round:04d}", work):
            raise RefusedError(
                f"Another weight was asked for in round {ticket.round} before",
                kept="The first one stands; nothing was sealed",
            )
        sealed = context.folder.sealed(ticket.round, ticket.attempt)
        if sealed is None:
            context.show("sealing", ticket.round)
            with context.timed("seal"):
                sealed = self._seal_now(ticket, raw, ticket.weight)
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
            data = context.folder.sealed_path(header.round, header.attempt).read_bytes()
            if sha256_hex(data) != update.container_sha256:
                raise ContainerError("The sealed update on this domain's disk was changed", kept="It was not sent")
            return context.blobs.send(context.researcher, self._name(header.round, header.attempt), data)

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

    def _seal_now(self, ticket: Ticket, raw: Path, weight: float) -> SealedRound:
        context, folder = self.context, self.context.folder
        before = context.adapter(ticket.round - 1)
        update = check_update(raw, before, context.plan, ticket.round)
        sent = context.sent(before, ticket.round)
        # Training code may write where its outputs lie: what a later attempt seals is what the first one sealed.
        start = adapter_digest(before)[:16]
        if not folder.claim(f"update-{ticket.round:04d}-{start}", hashlib.sha256(update.data).hexdigest()):
            raise RefusedError(
                f"The training output of round {ticket.round} was changed after it was sealed",
                kept="Nothing was sealed",
            )
        update = self._noised(update, sent, ticket.round, start)
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
            weight=weight,
            nonce=secrets.token_hex(16),
            key_id=key.key_id,
            layout=adapter_layout_digest(sent),
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
        return SealedRound(update=signed, members=ticket.members, clipped=clipped)

    def _noised(self, update: np.ndarray, sent: Mapping[str, np.ndarray], round_number: int, start: str) -> np.ndarray:
        """Return what leaves: with privacy of unit domain, the update clipped and noised, drawn once and kept.

        It is on the disk before it is used first, so that no kill and no further attempt draws noise again on the same
        update, which would cost epsilon again.

        Raises
        ------
        RefusedError
            If the round was not charged.
        """
        privacy, path = self.context.plan.privacy, self.context.folder.noised_path(round_number, start)
        if privacy is None or privacy.unit != "domain":
            return update
        if not path.exists():
            charge = PrivacyBudget(self.context.ledger).charge_of(self.context.study, round_number, start)
            if charge is None:
                raise RefusedError(f"Round {round_number} was not charged", kept="Nothing was sealed")
            sigma = charge.mechanism.noise_multiplier
            save_state(unflatten(privatise(update, clip=privacy.bound, noise_multiplier=sigma), sent), path)
        return flatten(load_state(path, layout_of(sent)))

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
