"""What a round costs beside its training, in a real federation: domains as processes, an encrypted store, sealing.

Nothing in the round is cut short: tickets, sealing, the updates' way over the store, the confirmation by every member,
adding, and opening at the next ticket. The times come from the events that the study emits anyway.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.errors import StudyError
from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.researcher.events import Event, ResultReceived, RoundFinished, TicketSent, UpdateReceived
from fedpriv.training.adapter import lora_layout
from fedpriv.training.recipe import stock_recipe

_TRAINING = ("train", "evaluate")
"""What a domain does with the model; the rest of its answer, and of the round, is overhead."""


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """One round, from the end of the one before to its own.

    Attributes
    ----------
    wall_s : float
        Wall clock.
    training_s : float
        Of the domain that trained and evaluated longest, as it measured it.
    parts : dict of str to float
        Where the overhead went, in seconds, along the way of the domain that answered last: ``tickets`` until its
        ticket was sent; ``open``, ``seal`` and ``transfer`` there; ``answer``, the rest until its answer was read:
        noticing the ticket, checks, records, noticing the answer; then ``fetch``, ``confirm``, ``aggregate``, and
        ``rest``, the summary and the removal of blobs.
    """

    round: int
    wall_s: float
    training_s: float
    parts: dict[str, float]

    @property
    def overhead_s(self) -> float:
        """The round minus training."""
        return self.wall_s - self.training_s


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """All rounds but the first, which has no sum to open.

    Attributes
    ----------
    model : str
        That was trained.
    domains, steps, parameters, update_bytes : int
        How many took part; steps of each round; parameters of an update and its sealed size.
    tensors : tuple of int
        Parameters of each tensor of the update.
    rounds : tuple of RoundCost
        From the second.
    """

    model: str
    domains: int
    steps: int
    parameters: int
    update_bytes: int
    tensors: tuple[int, ...]
    rounds: tuple[RoundCost, ...]

    @property
    def median_s(self) -> float:
        """The median overhead of a round."""
        return statistics.median(cost.overhead_s for cost in self.rounds)

    @property
    def worst_s(self) -> float:
        """The largest overhead of a round."""
        return max(cost.overhead_s for cost in self.rounds)

    @property
    def parts(self) -> dict[str, float]:
        """The median of each part."""
        return {name: statistics.median(cost.parts[name] for cost in self.rounds) for name in self.rounds[0].parts}


def measure_rounds(
    work: Path, *, model: str, rounds: int, on_progress: Callable[[str, float], None], domains: int = 3, steps: int = 1
) -> Overhead:
    """Run a federated study and return what its rounds cost beside training.

    Parameters
    ----------
    work : Path
        For the parties' folders and the store.
    model : str
        Base model.
    rounds : int
        How many are counted; one more is run before them.
    on_progress : callable
        Called with what is done and which part of it is.
    domains, steps : int
        How many domains; optimiser steps of each round.

    Raises
    ------
    StudyError
        If a domain does not approve or carry out what it is asked.
    """
    clock = _Clock()
    with Federation.create(model=model, domains=domains, work=work) as federation:
        plan = federation.plan(rounds=rounds + 1, steps=steps)
        study = Study.create(federation.researcher, "bench", plan, recipe=stock_recipe())
        study.submit()
        decisions = study.wait_for_decisions(federation.watch)
        if any(decision.decision != "approved" for decision in decisions.values()):
            raise StudyError("The domains of the benchmark did not approve it", todo="report this, please")

        def show(event: Event) -> None:
            if isinstance(event, RoundFinished):
                on_progress(f"rounds of {model} at {domains} domains", event.round / (rounds + 2))

        study.run(clock, federation.watch, show)
        layout = lora_layout(federation.model.folder, plan.lora)
    last = clock.finished[max(clock.finished)]
    return Overhead(
        model=model,
        domains=domains,
        steps=steps,
        parameters=last.parameters,
        update_bytes=last.bytes_up,
        tensors=tuple(math.prod(shape) for shape in layout.values()),
        rounds=tuple(clock.cost(number) for number in sorted(clock.finished)[1:]),
    )


@dataclass
class _Clock:
    """Notes when which event came (a subscriber of a study's events), and makes sense of it afterwards."""

    finished: dict[int, RoundFinished] = field(default_factory=dict)
    _ends: dict[int, float] = field(default_factory=dict)
    _sent: dict[tuple[int, str], float] = field(default_factory=dict)
    _answers: dict[int, list[tuple[float, ResultReceived]]] = field(default_factory=lambda: defaultdict(list))
    _fetched: dict[int, float] = field(default_factory=dict)
    _confirmed: dict[int, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        match event:
            case TicketSent(kind="train"):
                self._sent[event.round, event.domain] = now
            case ResultReceived(kind="train"):
                self._answers[event.round].append((now, event))
            case ResultReceived(kind="confirm"):
                self._confirmed[event.round] = now
            case UpdateReceived():
                self._fetched[event.round] = now
            case RoundFinished():
                self._ends[event.round], self.finished[event.round] = now, event
            case _:
                pass

    def cost(self, number: int) -> RoundCost:
        """Return what a round but the first cost."""
        start, end = self._ends[number - 1], self._ends[number]
        answered, last = self._answers[number][-1]
        sent, fetched, confirmed = self._sent[number, last.domain], self._fetched[number], self._confirmed[number]
        there = {name: last.seconds.get(name, 0.0) for name in ("open", "seal", "transfer")}
        added = self.finished[number].seconds["aggregate"]
        return RoundCost(
            round=number,
            wall_s=end - start,
            training_s=max(_training(answer) for _, answer in self._answers[number]),
            parts={
                "tickets": sent - start,
                **there,
                "answer": answered - sent - _training(last) - sum(there.values()),
                "fetch": fetched - answered,
                "confirm": confirmed - fetched,
                "aggregate": added,
                "rest": end - confirmed - added,
            },
        )


def _training(answer: ResultReceived) -> float:
    return sum(answer.seconds.get(name, 0.0) for name in _TRAINING)
