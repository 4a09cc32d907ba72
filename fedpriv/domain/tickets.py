"""Carrying out tickets: prepare, train, confirm, open, hand over; each step repeatable, each effect once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedpriv.clinical import PreparedData
from fedpriv.domain.confirming import Confirming
from fedpriv.domain.context import StudyContext, pinned_identities
from fedpriv.domain.gatekeeper import check_metrics, metric_bounds
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.opening import Opening
from fedpriv.domain.policy import is_stock
from fedpriv.domain.privacy_budget import PrivacyBudget, private_steps
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.sealing import Sealing
from fedpriv.domain.skipping import Skipping
from fedpriv.domain.updates import Updates
from fedpriv.errors import DataError, FedprivError, RefusedError, TrainingError, UntrustedError, VersionError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import sign
from fedpriv.study import Result, Ticket
from fedpriv.study.shard import ShardStatement
from fedpriv.training.adapter import save_state, starting_adapter
from fedpriv.training.base_model import LocalModel
from fedpriv.training.private_round import PrivateSteps
from fedpriv.training.recipe import stock_recipe

_MOST_FAILURES = 5
"""Of the training code in one round, until the data owner approves the request again."""


@dataclass(kw_only=True)
class StudyWork:
    """The work of one approved study at one domain.

    Attributes
    ----------
    context : StudyContext
        The study's keys, folder, limits and clock.
    releasing : Releasing
        The release of the adapter.
    training : LocalTraining
        The untrusted half: runs jobs of this study in their sandbox.
    """

    context: StudyContext
    releasing: Releasing
    training: LocalTraining
    prepared: PreparedData
    model: LocalModel
    shard: ShardStatement

    def carry_out(self, ticket: Ticket, digest: str) -> Result:
        """Do what a verified ticket of this study asks.

        Raises
        ------
        RefusedError
            If the approval's limits do not allow it, or its slot was used by another ticket.
        FedprivError
            Any other of ours, naming what was wrong.
        """
        context = self.context
        limit = context.limits().rounds
        if ticket.round > limit:
            raise RefusedError(
                f"Round {ticket.round} is over the approved {limit} round{'s' if limit > 1 else ''}",
                kept="Nothing was run",
                todo="ask the data owner to approve more (`fedpriv domain approve --rounds`)",
            )
        self._claim(ticket)
        context.start_measuring()
        work = {
            "prepare": self._prepare,
            "rekey": self._rekey,
            "replay": self._replay,
            "skip": self._skip,
            "train": self._train,
            "seal": self._seal,
            "confirm": self._confirm,
            "finish": self._finish,
            "consent": self.releasing.consent,
            "release": self.releasing.hand_over,
            "ping": lambda ticket: {},
        }
        facts = work[ticket.kind](ticket)
        context.show("done", ticket.round)
        return Result(
            study=ticket.study,
            ticket_sha256=digest,
            kind=ticket.kind,
            round=ticket.round,
            member=context.member,
            status="done",
            seconds={name: round(value, 4) for name, value in context.seconds.items()},
            link=context.traffic.sample(),
            **facts,
        )

    def close(self) -> None:
        """End the training worker."""
        self.training.stop()

    def _claim(self, ticket: Ticket) -> None:
        if ticket.kind in ("ping", "consent", "release"):
            return  # nothing changes with them, however often they are asked for
        if ticket.kind == "confirm":
            return  # claims its updates itself, once they are verified
        slot = f"{ticket.kind}-{ticket.round:04d}-{ticket.attempt}"
        if ticket.members:
            self.context.require_members(ticket.members)
            if self.context.folder.sealed(ticket.round, ticket.attempt) is None:
                # What named other members was refused, or ended, before anything was sealed: it has no effect to keep.
                self.context.folder.unclaim(slot)
        if not self.context.folder.claim(slot, sha256_hex(canonical_json(ticket.work))):
            raise RefusedError(
                f"Another ticket was sent for {ticket.kind} of round {ticket.round} before", kept="The first one stands"
            )

    # -- the kinds of ticket ---------------------------------------------------------------------------------

    def _prepare(self, ticket: Ticket) -> dict[str, Any]:
        context = self.context
        context.folder.keep_identities(pinned_identities(context.plan, ticket.identities))
        context.show("loading", 0)
        self.training.start()
        if not context.folder.adapter(0).exists():
            adapter = starting_adapter(self.model.folder, context.plan.lora, context.plan.training.seed)
            save_state(adapter, context.folder.adapter(0))
        metrics = self._evaluate(0) | {"examples": float(self.prepared.examples)}
        facts: dict[str, Any] = {
            "metrics": metrics,
            "adapter_sha256": self.context.adapter_digest(0),
            "shard": sign(context.keys, "shard", self.shard),
        }
        if context.member == context.plan.key_maker:
            facts |= self._make_key(1)
        return facts

    def _rekey(self, ticket: Ticket) -> dict[str, Any]:
        return self._make_key(ticket.attempt)

    def _make_key(self, generation: int) -> dict[str, Any]:
        context = self.context
        return context.key_room.make(
            context.folder.identities(), context.tensors(), turns=context.turns(), generation=generation
        )

    def _replay(self, ticket: Ticket) -> dict[str, Any]:
        self._catch_up(ticket)
        return {"adapter_sha256": self.context.adapter_digest(ticket.round)}

    def _skip(self, ticket: Ticket) -> dict[str, Any]:
        Skipping(self.context).skip(ticket)
        return {"adapter_sha256": self.context.adapter_digest(ticket.round)}

    def _train(self, ticket: Ticket) -> dict[str, Any]:
        context = self.context
        if ticket.members:
            context.require_members(ticket.members)
        self._require_open(ticket)
        self._catch_up(ticket)
        context.key_room.load()  # without a key nothing could be sealed, so nothing is trained
        raw = self._train_locally(ticket)
        Updates(context).keep(ticket.round, raw / "adapter_after.safetensors")
        facts = {
            "metrics": self._metrics_of_training(ticket, raw),
            "adapter_sha256": self.context.adapter_digest(ticket.round - 1),
        }
        return facts | self._publish(ticket) if ticket.members else facts

    def _seal(self, ticket: Ticket) -> dict[str, Any]:
        self.context.require_members(ticket.members)
        trained = ticket.trained or ticket.round
        if trained > ticket.round or (trained < ticket.round and not self.context.plan.schedule.is_buffered):
            raise RefusedError(
                f"The plan does not provide for an update of round {trained} in round {ticket.round}",
                kept="Nothing was sealed",
            )
        self._catch_up(ticket)
        return {"adapter_sha256": self.context.adapter_digest(ticket.round - 1)} | self._publish(ticket)

    def _publish(self, ticket: Ticket) -> dict[str, Any]:
        sealing = Sealing(self.context)
        update = sealing.seal(ticket)
        return {"update": update, "update_blob": sealing.publish(update)}

    def _require_open(self, ticket: Ticket) -> None:
        """Refuse to train for a round that is over: the ticket of a domain that was away came late."""
        opened = self.context.folder.opened(ticket.round)
        if opened is not None and opened.attempt >= ticket.attempt:
            raise RefusedError(f"Round {ticket.round} is over: its sum was opened", kept="Nothing was run")

    def _catch_up(self, ticket: Ticket) -> None:
        """Take the key and open the sum that a ticket carries, so that this domain has the adapter it builds on."""
        context = self.context
        before = ticket.round if ticket.kind in ("replay", "finish") else ticket.round - 1
        if ticket.key is not None:
            context.key_room.take(ticket.key, context.folder.identities())
        if ticket.aggregate is not None:
            Opening(context).open(ticket)
        elif before > 0 and context.folder.opened(before) is None:
            raise RefusedError("The ticket carries no aggregate to open", kept="Nothing was run")

    def _confirm(self, ticket: Ticket) -> dict[str, Any]:
        return {"unlock": Confirming(self.context).confirm(ticket)}

    def _finish(self, ticket: Ticket) -> dict[str, Any]:
        self._catch_up(ticket)
        self.context.key_room.forget(self.context.folder.identities())
        metrics = self._evaluate(ticket.round)
        self.training.stop()  # torch's memory goes back; another ticket would start it again
        return {"metrics": metrics, "adapter_sha256": self.context.adapter_digest(ticket.round)}

    # -- local training --------------------------------------------------------------------------------------

    def _train_locally(self, ticket: Ticket) -> Path:
        """Train from the adapter of the round before; a finished output from the same adapter is used again."""
        context = self.context
        start = self.context.adapter_digest(ticket.round - 1)[:16]
        output = context.folder.output(f"train-{ticket.round:04d}-{start}")
        once = f"{ticket.study}/train/{ticket.round}/{start}"
        private = self._charge(ticket, start)
        if (output / "adapter_after.safetensors").exists() and context.ledger.has(f"{once}/done"):
            return output
        if context.plan.privacy is not None and context.ledger.has(f"{once}/done"):
            # What was trained may have been sent. Training again would send other noise on the same data, uncharged.
            raise RefusedError(
                f"The private training output of round {ticket.round} is gone",
                kept="Nothing was run",
                todo="put the study's folder back from a backup, or make a new study",
            )
        self._require_tries_left(ticket)
        started = context.ledger.append("round.started", once=once, study=ticket.study, round=ticket.round)
        if not started:
            context.ledger.append("round.resumed", study=ticket.study, round=ticket.round)
        context.show("training", ticket.round)
        try:
            with context.timed("train"):
                # The first adapter was measured when the study was prepared.
                evaluate = ticket.round > 1 and not self._only_measured_apart
                on_step = functools.partial(context.show, "training", ticket.round)
                self._run(
                    "train",
                    ticket.round,
                    ticket.round - 1,
                    output,
                    on_step,
                    evaluate=evaluate,
                    private=private,
                    steps=self._steps(ticket),
                )
        except FedprivError as error:
            context.ledger.append(
                "round.stopped",
                study=ticket.study,
                round=ticket.round,
                reason=error.what,
                error=type(error).__name__,
            )
            if self._only_measured_apart and isinstance(error, TrainingError):
                # Its kind and its line the code chooses, and could spell a note with: past the noise.
                raise TrainingError(
                    "The training code failed; with this plan's privacy, how it failed stays at the domain",
                    kept="Nothing was sent",
                    todo="ask the data owner what its ledger says, or try the code on mock data",
                ) from error
            raise
        finally:
            self._record_attempts(ticket)
        context.ledger.append(
            "round.trained",
            once=f"{once}/done",
            study=ticket.study,
            round=ticket.round,
            sandbox=self.training.walls,
            processes=self.training.report.processes,
        )
        return output

    def _require_tries_left(self, ticket: Ticket) -> None:
        """Refuse code that fails again and again: each time it tells its kind of failure, which it chooses.

        The stock recipe chooses nothing, and may be tried until the machine lets it.

        Raises
        ------
        RefusedError
            If it failed so often in this round since the request was approved last.
        """
        request = self.context.stored.request
        if is_stock(request, stock_recipe(), besides=request.plan.task.template):
            return
        failed = 0
        for entry in self.context.ledger.entries():
            if entry.facts.get("study") != ticket.study:
                continue
            if entry.kind == "request.approved":
                failed = 0
            elif entry.kind == "round.stopped" and entry.facts.get("round") == ticket.round:
                failed += entry.facts.get("error") == "TrainingError"
        if failed >= _MOST_FAILURES:
            raise RefusedError(
                f"The training code failed {failed} times in round {ticket.round}",
                kept="Nothing was run",
                todo="ask the data owner to mend what its ledger names (memory, time, the code), and to approve the "
                "request again if it may go on",
            )

    def _steps(self, ticket: Ticket) -> int:
        """Return the optimiser steps of a ticket: the plan's, or fewer where the plan balances them.

        Raises
        ------
        RefusedError
            If the plan provides for no other number, or for fewer.
        """
        plan = self.context.plan
        steps = ticket.steps or plan.training.steps
        if steps > plan.training.steps or (steps != plan.training.steps and plan.schedule.local_steps != "balanced"):
            raise RefusedError(
                f"The ticket asks for {steps} steps; the plan has {plan.training.steps}", kept="Nothing was run"
            )
        return steps

    def _run(self, kind: Literal["train", "evaluate"], *arguments: Any, **options: Any) -> None:
        """Run a job that ends as soon as the data owner's approval does."""
        limits = self.context.limits()
        self.training.run(kind, *arguments, **options, seconds=limits.seconds, watch=self.context.limits)

    def _record_attempts(self, ticket: Ticket) -> None:
        """Tell the data owner, and nobody else, what the code tried that training never needs."""
        context, tried = self.context, sorted(self.training.report.tried)
        if tried:
            context.ledger.append("code.tried", study=ticket.study, round=ticket.round, what=tried)
            context.notify(
                f"study {ticket.study[:12]}: in round {ticket.round} the code tried what training never needs: "
                f"{', '.join(tried)}; the sandbox is there to refuse it (walls: {self.training.walls})"
            )

    def _charge(self, ticket: Ticket, start: str) -> PrivateSteps | None:
        """Charge a round's epsilon before anything is trained; return the steps of DP-SGD, or None for a recipe.

        Raises
        ------
        RefusedError
            If the data's budget or the study's epsilon does not allow it.
        """
        context, privacy = self.context, self.context.plan.privacy
        if privacy is None:
            return None
        charge = PrivacyBudget(context.ledger).charge(
            context.plan,
            ticket.study,
            ticket.round,
            start,
            dataset=context.config.data.dataset,
            patients=self.prepared.patients,
            budget=context.config.policy.epsilon,
            approved=context.limits().epsilon,
        )
        return private_steps(privacy, charge.mechanism, charge.patients) if privacy.unit == "patient" else None

    @property
    def _only_measured_apart(self) -> bool:
        """Whether what a recipe's job reports is not believed: any number could carry notes past the noise."""
        privacy = self.context.plan.privacy
        return privacy is not None and privacy.unit == "domain"

    def _metrics_of_training(self, ticket: Ticket, raw: Path) -> dict[str, float]:
        """Return the metrics of a train ticket; with privacy of unit domain, from jobs that run no recipe."""
        if not self._only_measured_apart:
            return self._metrics(raw)
        measured = self._evaluate(ticket.round - 1) if ticket.round > 1 else {}
        return measured | {"examples": float(self.prepared.examples)}

    def _evaluate(self, round_number: int) -> dict[str, float]:
        context = self.context
        context.show("evaluating", round_number)
        with context.timed("evaluate"):
            output = context.folder.output(f"evaluate-{round_number:04d}")
            on_step = functools.partial(context.show, "evaluating", round_number)
            self._run("evaluate", round_number, round_number, output, on_step)
        return self._metrics(output)

    def _metrics(self, output: Path) -> dict[str, float]:
        """Return what may leave of a job's metrics: what the plan may send, and the data owner lets out."""
        prepared, plan = self.prepared, self.context.plan
        bounds = metric_bounds(plan, examples=prepared.examples, heldout_examples=prepared.heldout_examples)
        allowed = set(plan.leaving_metrics) & set(self.context.limits().metrics)
        return check_metrics(output / "metrics.json", allowed, bounds)


WITHHELD = (
    "This domain's data cannot be used for the study. What is wrong with it stays at the domain. Next: ask its data "
    "owner, who reads the reason where the domain's service runs and in its ledger."
)


def failure(ticket: Ticket, digest: str, member: str, error: FedprivError, *, retired_key: str = "") -> Result:
    """Return the answer to a ticket that was refused or failed, with the reason in words.

    What is wrong with data is said with counts and numbers of rows, so it stays with the data owner.
    """
    return Result(
        study=ticket.study,
        ticket_sha256=digest,
        kind=ticket.kind,
        round=ticket.round,
        member=member,
        status="refused" if isinstance(error, RefusedError | UntrustedError | VersionError) else "failed",
        reason=WITHHELD if isinstance(error, DataError) else str(error)[:2000],
        retired_key=retired_key,
    )
