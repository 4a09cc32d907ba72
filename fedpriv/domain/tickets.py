"""Carrying out tickets: open, train, check, seal, record, publish; each step repeatable, each effect once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv.clinical import PreparedData
from fedpriv.domain.folder import DomainConfig
from fedpriv.domain.gatekeeper import check_metrics, check_update
from fedpriv.domain.keyroom import KeyRoom
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ContainerError, FedprivError, RefusedError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import IdentityKeys, fingerprint, opener_for, sealer_for, sign_update, verify_manifest
from fedpriv.study import AggregateManifest, BlobRef, Progress, Result, SignedUpdate, Ticket, UpdateHeader
from fedpriv.training.adapter import (
    adapter_digest,
    adapter_layout_digest,
    flatten,
    initial_adapter,
    load_state,
    lora_layout,
    save_state,
    unflatten,
)
from fedpriv.training.base_model import LocalModel
from fedpriv.transport import BlobChannel

Adapter = dict[str, np.ndarray]
_PROGRESS_SECONDS = 0.5


@dataclass(kw_only=True)
class StudyWork:
    """One approved study at one domain.

    Attributes
    ----------
    folder : StudyFolder
        Where everything about this study is kept.
    training : LocalTraining
        The untrusted half: runs jobs of this study in their sandbox.
    """

    config: DomainConfig
    keys: IdentityKeys
    folder: StudyFolder
    training: LocalTraining
    stored: StoredRequest
    prepared: PreparedData
    model: LocalModel
    ledger: Ledger
    blobs: BlobChannel
    on_progress: Callable[[Progress], None]
    _shown_s: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict)

    def carry_out(self, ticket: Ticket, digest: str) -> Result:
        """Do what a verified ticket of this study asks.

        Raises
        ------
        RefusedError
            If the approval's limits do not allow it, or its slot was used by another ticket.
        FedprivError
            Any other of ours, naming what was wrong.
        """
        limit = self.stored.decision.max_rounds or 0
        if ticket.round > limit:
            raise RefusedError(f"Round {ticket.round} is over the approved {limit} rounds", kept="Nothing was run")
        work_digest = sha256_hex(canonical_json(ticket.work))
        if not self.folder.claim(f"{ticket.kind}-{ticket.round:04d}-{ticket.attempt}", work_digest):
            raise RefusedError(
                f"Another ticket was sent for {ticket.kind} of round {ticket.round} before", kept="The first one stands"
            )
        self._seconds = {}
        work = {"prepare": self._prepare, "train": self._train, "finish": self._finish, "release": self._release}
        facts = work[ticket.kind](ticket)
        self._show("done", ticket.round)
        return Result(
            study=ticket.study,
            ticket_sha256=digest,
            kind=ticket.kind,
            round=ticket.round,
            member=self.config.email,
            status="done",
            seconds={name: round(value, 4) for name, value in self._seconds.items()},
            **facts,
        )

    def close(self) -> None:
        """End the training worker."""
        self.training.stop()

    # -- the four kinds of ticket ----------------------------------------------------------------------------

    def _prepare(self, ticket: Ticket) -> dict[str, Any]:
        self._verify_identities(ticket)
        self._show("loading", 0)
        self.training.start()
        if not self.folder.adapter(0).exists():
            plan = self.stored.request.plan
            layout = lora_layout(self.model.folder, plan.lora)
            save_state(initial_adapter(layout, plan.training.seed), self.folder.adapter(0))
        metrics = self._evaluate(0) | {"examples": float(self.prepared.examples)}
        facts: dict[str, Any] = {"metrics": metrics, "adapter_sha256": self._digest(0)}
        if self.config.email == self.stored.request.plan.key_maker:
            facts |= self._key_room().make(self.folder.identities())
        return facts

    def _train(self, ticket: Ticket) -> dict[str, Any]:
        if ticket.weight is None:
            raise RefusedError("A train ticket must say this member's weight", kept="Nothing was run")
        if ticket.key is not None:
            self._key_room().take(ticket.key, self.folder.identities())
        if ticket.round > 1:
            self._open(ticket)
        raw = self._train_locally(ticket)
        metrics = check_metrics(raw / "metrics.json", self.stored.request.plan)
        update = self._seal(ticket, raw, ticket.weight)
        self._show("publishing", ticket.round)
        with self._timed("transfer"):
            blob = self._publish_update(ticket, update)
        return {
            "metrics": metrics,
            "adapter_sha256": self._digest(ticket.round - 1),
            "update": update,
            "update_blob": blob,
        }

    def _finish(self, ticket: Ticket) -> dict[str, Any]:
        self._open(ticket)
        self._key_room().forget(self.folder.identities())
        metrics = self._evaluate(ticket.round)
        self.training.stop()  # torch's memory goes back; another ticket would start it again
        return {"metrics": metrics, "adapter_sha256": self._digest(ticket.round)}

    def _release(self, ticket: Ticket) -> dict[str, Any]:
        if not self.stored.decision.release:
            raise RefusedError(
                "The data owner did not approve the release of the adapter",
                kept="The adapter stays at the domain",
                todo="ask the data owner to run `fedpriv domain approve --release`",
            )
        path = self.folder.adapter(ticket.round)
        if ticket.round != self.stored.request.plan.training.rounds or not path.exists():
            raise RefusedError("Only the adapter after the last round can be released", kept="Nothing was sent")
        with self._timed("transfer"):
            blob = self.blobs.send(self.stored.researcher, f"adapter-{ticket.study[:16]}", path.read_bytes())
        digest = self._digest(ticket.round)
        self.ledger.append(
            "adapter.released", once=f"{ticket.study}/release", study=ticket.study, adapter_sha256=digest
        )
        return {"adapter_blob": blob, "adapter_sha256": digest}

    # -- local training --------------------------------------------------------------------------------------

    def _train_locally(self, ticket: Ticket) -> Path:
        """Train from the adapter of the round before; a finished output of this round is used again."""
        name = f"train-{ticket.round:04d}-{ticket.attempt}"
        output = self.folder.output(name)
        once = f"{ticket.study}/train/{ticket.round}/{ticket.attempt}"
        if (output / "adapter_after.safetensors").exists() and self.ledger.has(f"{once}/done"):
            return output
        started = self.ledger.append("round.started", once=once, study=ticket.study, round=ticket.round)
        if not started:
            self.ledger.append("round.resumed", study=ticket.study, round=ticket.round)
        self._show("training", ticket.round)
        with self._timed("train"):
            evaluate = {"evaluate": ticket.round > 1}  # the first adapter was measured when the study was prepared
            on_step = functools.partial(self._show, "training", ticket.round)
            self.training.run("train", ticket.round, ticket.round - 1, output, on_step, **evaluate)
        self.ledger.append(
            "round.trained",
            once=f"{once}/done",
            study=ticket.study,
            round=ticket.round,
            sandbox=self.training.sandbox,
        )
        return output

    def _evaluate(self, round_number: int) -> dict[str, float]:
        self._show("evaluating", round_number)
        with self._timed("evaluate"):
            output = self.folder.output(f"evaluate-{round_number:04d}")
            on_step = functools.partial(self._show, "evaluating", round_number)
            self.training.run("evaluate", round_number, round_number, output, on_step)
        return check_metrics(output / "metrics.json", self.stored.request.plan)

    # -- sealing and opening ---------------------------------------------------------------------------------

    def _seal(self, ticket: Ticket, raw: Path, weight: float) -> SignedUpdate:
        """Seal this round's update once; a restart finds the sealed container and its signed header."""
        known = self.folder.sealed_update(ticket.round, ticket.attempt)
        once = f"{ticket.study}/seal/{ticket.round}/{ticket.attempt}"
        if known is None:
            self._show("sealing", ticket.round)
            with self._timed("seal"):
                known = self._seal_now(ticket, raw, weight)
            self.folder.keep_sealed_update(known)
        self.ledger.append(
            "update.sealed",
            once=once,
            study=ticket.study,
            round=ticket.round,
            container_sha256=known.container_sha256,
            container_bytes=known.container_bytes,
            level=known.header.level,
            weight=known.header.weight,
        )
        return known

    def _seal_now(self, ticket: Ticket, raw: Path, weight: float) -> SignedUpdate:
        plan = self.stored.request.plan
        before = self._adapter(ticket.round - 1)
        update = check_update(raw / "adapter_after.safetensors", before, plan)
        key = self._key_room().load()
        header = UpdateHeader(
            study=ticket.study,
            round=ticket.round,
            attempt=ticket.attempt,
            member=self.config.email,
            level=plan.protection.level,
            weight=weight,
            key_id=key.key_id,
            layout=adapter_layout_digest(before),
            parameters=len(update),
        )
        residual_path = self.folder.round(ticket.round - 1, ticket.attempt) / "residual.npy"
        residual = np.load(residual_path, allow_pickle=False) if residual_path.exists() else None
        sealer = sealer_for(plan.protection, key, masks=self._key_room().masks(self.folder.identities()))
        path = self.folder.round(ticket.round, ticket.attempt) / "sealed.safetensors"
        sealed = sealer.seal(header, update, path, residual=residual)
        if sealed.residual is not None:
            # Beside this round, not over the last one: a kill before update.json is written seals again from the old.
            np.save(path.with_name("residual.npy"), sealed.residual)
        return sign_update(self.keys, header, sealed.sha256, sealed.size_bytes)

    def _publish_update(self, ticket: Ticket, update: SignedUpdate) -> BlobRef:
        path = self.folder.round(ticket.round, ticket.attempt) / "sealed.safetensors"
        name = _update_name(ticket.study, ticket.round, ticket.attempt)
        blob = self.blobs.send(self.stored.researcher, name, path.read_bytes())
        if blob.sha256 != update.container_sha256:
            raise ContainerError("The sealed update on this domain's disk was changed", kept="It was not sent")
        return blob

    def _open(self, ticket: Ticket) -> None:
        """Open the aggregate that a ticket carries and move this domain's copy of the adapter by it, once."""
        manifest, blob = ticket.aggregate, ticket.aggregate_blob
        if manifest is None or blob is None:
            raise RefusedError("The ticket carries no aggregate to open", kept="Nothing was run")
        wanted = ticket.round if ticket.kind == "finish" else ticket.round - 1
        if manifest.round != wanted or manifest.study != ticket.study:
            raise UntrustedError("The aggregate is of another round or study", kept="It was not opened")
        if self.folder.adapter(manifest.round).exists():
            return
        self._verify_manifest(manifest, blob)
        self._show("opening", ticket.round)
        path = self.folder.round(manifest.round, manifest.attempt) / "aggregate.safetensors"
        with self._timed("transfer"):
            self.blobs.receive(self.stored.researcher, blob, path)
        with self._timed("open"):
            plan = self.stored.request.plan
            opened = opener_for(plan.protection, self._key_room().load(), len(plan.cohort)).open(
                path, manifest=manifest
            )
            before = self._adapter(manifest.round - 1)
            total = sum(update.header.weight for update in manifest.updates)
            moved = unflatten((flatten(before) + opened / total).astype(np.float32), before)
        save_state(moved, self.folder.adapter(manifest.round))
        self.ledger.append(
            "aggregate.opened",
            once=f"{ticket.study}/open/{manifest.round}",
            study=ticket.study,
            round=manifest.round,
            aggregate_sha256=manifest.aggregate_sha256,
            members=[update.header.member for update in manifest.updates],
            adapter_sha256=adapter_digest(moved),
        )
        path.unlink()
        self._forget_update(manifest)

    def _forget_update(self, manifest: AggregateManifest) -> None:
        """Remove the sealed update of a round whose sum was opened: from the store and from the disk."""
        name = _update_name(manifest.study, manifest.round, manifest.attempt)
        self.blobs.remove(self.stored.researcher, name)
        (self.folder.round(manifest.round, manifest.attempt) / "sealed.safetensors").unlink(missing_ok=True)

    def _verify_manifest(self, manifest: AggregateManifest, blob: BlobRef) -> None:
        """Refuse an aggregate that is not exactly the cohort's updates of one round, ours among them."""
        verify_manifest(
            manifest,
            self.folder.identities(),
            study=self.stored.request.study,
            round=manifest.round,
            attempt=manifest.attempt,
            expected_members=self.stored.request.plan.emails,
        )
        if self.folder.sealed_update(manifest.round, manifest.attempt) not in manifest.updates:
            raise UntrustedError("The aggregate does not hold this domain's own update", kept="It was not opened")
        if blob.sha256 != manifest.aggregate_sha256:
            raise UntrustedError("The aggregate is not the one that its manifest names", kept="It was not opened")

    # -- small helpers ---------------------------------------------------------------------------------------

    def _verify_identities(self, ticket: Ticket) -> None:
        plan = self.stored.request.plan
        identities = {identity.email: identity for identity in ticket.identities}
        if sorted(identities) != list(plan.emails) or len(ticket.identities) != len(identities):
            raise UntrustedError("The ticket does not bring the keys of the plan's cohort", kept="Nothing was run")
        for email, identity in identities.items():
            if fingerprint(identity) != plan.fingerprint_of(email):
                raise UntrustedError(f"The keys of {email} are not the ones pinned in the plan", kept="Nothing was run")
        self.folder.keep_identities(identities)

    def _key_room(self) -> KeyRoom:
        return KeyRoom(
            folder=self.folder,
            keys=self.keys,
            stored=self.stored,
            member=self.config.email,
            ledger=self.ledger,
            blobs=self.blobs,
        )

    def _adapter(self, round_number: int) -> Adapter:
        return load_state(self.folder.adapter(round_number))

    def _digest(self, round_number: int) -> str:
        return adapter_digest(self._adapter(round_number))

    def _show(self, state: str, round_number: int, step: int = 0, steps: int = 0) -> None:
        """Show progress, at most twice a second within one state."""
        now = time.monotonic()
        if step and step != steps and now - self._shown_s < _PROGRESS_SECONDS:
            return
        self._shown_s = now
        study = self.stored.request.study
        value = {"study": study, "round": round_number, "state": state, "step": step, "steps": steps}
        self.on_progress(Progress.model_validate(value))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started


def _update_name(study: str, round_number: int, attempt: int) -> str:
    return f"update-{study[:16]}-{round_number:04d}-{attempt}"


def failure(ticket: Ticket, digest: str, member: str, error: FedprivError) -> Result:
    """Return the answer to a ticket that was refused or failed, with the reason in words."""
    return Result(
        study=ticket.study,
        ticket_sha256=digest,
        kind=ticket.kind,
        round=ticket.round,
        member=member,
        status="refused" if isinstance(error, RefusedError | UntrustedError) else "failed",
        reason=str(error)[:2000],
    )
