"""Opening a round's sum: only one that was confirmed, once, and never again with a key that a tampered sum has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpriv.domain.confirming import Confirming
from fedpriv.domain.context import StudyContext
from fedpriv.domain.moving import Moving
from fedpriv.domain.sealing import Sealing
from fedpriv.domain.study_folder import OpenedRound
from fedpriv.errors import RefusedError, TamperedError, UntrustedError
from fedpriv.protection import StudyKey, opener_for, updates_digest
from fedpriv.protection.sizes import most_bytes_of_key
from fedpriv.study import AggregateManifest, BlobRef, Ticket


@dataclass(frozen=True)
class Opening:
    """Opens the sums of one study at one domain and moves its copy of the adapter by them."""

    context: StudyContext

    def open(self, ticket: Ticket) -> None:
        """Open the aggregate that a ticket carries and move the adapter by it, once.

        A later attempt of a round takes the place of an earlier one: its sum is of the same changes, rounded anew.

        Raises
        ------
        TamperedError
            If the sum does not hold what its members sealed; the study key is retired then.
        UntrustedError, RefusedError
            If it is not a sum that this domain agreed to.
        """
        manifest, blob = self._aggregate(ticket)
        if self._is_opened(manifest):
            return
        context = self.context
        Confirming(context).require_confirmed(manifest)
        if blob.sha256 != manifest.aggregate_sha256:
            raise UntrustedError("The aggregate is not the one that its manifest names", kept="It was not opened")
        context.show("opening", ticket.round)
        path = context.folder.round(manifest.round, manifest.attempt) / "aggregate.safetensors"
        key, header = context.key_room.load(), manifest.updates[0].header
        most = most_bytes_of_key(key.parameters, header.round, header.bits, updates=len(manifest.updates))
        with context.timed("transfer"), context.traffic.down(blob.size_bytes):
            moved = context.moved("opening", ticket.round)
            context.blobs.receive(context.researcher, blob, path, max_bytes=most, on_moved=moved)
        with context.timed("open"):
            self._move(path, manifest, key)
        path.unlink()
        Sealing(context).forget(manifest.round)

    def _aggregate(self, ticket: Ticket) -> tuple[AggregateManifest, BlobRef]:
        manifest, blob = ticket.aggregate, ticket.aggregate_blob
        if manifest is None or blob is None:
            raise RefusedError("The ticket carries no aggregate to open", kept="Nothing was run")
        wanted = ticket.round if ticket.kind in ("finish", "replay") else ticket.round - 1
        if manifest.round != wanted or manifest.study != ticket.study:
            raise UntrustedError("The aggregate is of another round or study", kept="It was not opened")
        return manifest, blob

    def _is_opened(self, manifest: AggregateManifest) -> bool:
        opened = self.context.folder.opened(manifest.round)
        if opened is not None and opened.is_skipped:
            raise UntrustedError(f"Round {manifest.round} was skipped here", kept="Its sum was not opened")
        if opened is None or opened.attempt < manifest.attempt:
            return False
        if opened.attempt > manifest.attempt:
            raise UntrustedError("A later sum of that round was opened before", kept="It was not opened")
        if opened.updates_sha256 != updates_digest(manifest.updates):
            raise UntrustedError("Another sum was opened in that attempt of the round", kept="It was not opened")
        return True

    def _move(self, path: Path, manifest: AggregateManifest, key: StudyKey) -> None:
        context = self.context
        opener = opener_for(
            context.plan.protection,
            key,
            context.tensors(),
            turns=context.turns(),
            workers=context.workers(),
        )
        try:
            opened = opener.open(path, manifest=manifest, scales=context.scales(manifest.round))
        except TamperedError as error:
            self._refuse_for_good(manifest, error)
            # Which check found it stays here: the researcher, who may have changed the sum, learns that one did.
            raise TamperedError(
                "The sum does not hold what its members sealed",
                kept="It was not opened, and the study's key is never used again",
                todo="make a new key with `fedpriv study resume`, and ask the data owner to look at the ledger",
            ) from error
        weight = sum(update.header.weight for update in manifest.updates)
        Moving(context).move(manifest.round, opened.sum, weight)
        record = OpenedRound(
            attempt=manifest.attempt,
            members=tuple(update.header.member for update in manifest.updates),
            updates_sha256=updates_digest(manifest.updates),
            adapter_sha256=context.adapter_digest(manifest.round),
            scales=opened.next_scales,
        )
        context.ledger.append(
            "aggregate.opened",
            once=f"{context.study}/open/{manifest.round}/{manifest.attempt}",
            study=context.study,
            round=manifest.round,
            attempt=manifest.attempt,
            aggregate_sha256=manifest.aggregate_sha256,
            members=list(record.members),
            adapter_sha256=record.adapter_sha256,
        )
        context.folder.keep_opened(manifest.round, record)  # from here on the round counts as opened

    def _refuse_for_good(self, manifest: AggregateManifest, error: TamperedError) -> None:
        """Record the refusal and retire the key: whoever may have tampered sums opened learns the key from them."""
        context = self.context
        context.ledger.append(
            "aggregate.refused",
            once=f"{context.study}/refused/{manifest.round}/{manifest.attempt}/{manifest.aggregate_sha256[:16]}",
            study=context.study,
            round=manifest.round,
            attempt=manifest.attempt,
            aggregate_sha256=manifest.aggregate_sha256,
            members=[update.header.member for update in manifest.updates],
            reason=error.what,
        )
        context.key_room.retire()
        context.notify(
            f"study {context.study[:12]}: the sum of round {manifest.round} was refused ({error.what}); "
            "the study key was retired and is never used again"
        )
