"""The same study twice: over a folder that all parties reach, and over a Flower deployment on this machine."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.experiments.federation import Federation
from fedpriv.experiments.flower.bed import FlowerBed, apart
from fedpriv.experiments.flower.environment import flower_environment, flower_version
from fedpriv.researcher import Study
from fedpriv.researcher.events import Event, RoundFinished, RoundStarted, TicketSent, UpdateReceived
from fedpriv.training.recipe import stock_recipe

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a study went.

    Attributes
    ----------
    adapter_sha256 : str
        Digest of the adapter that all domains hold in the end.
    rounds_s : tuple of float
        Wall clock of each round.
    study_s : float
        Wall clock from submitting to the end.
    """

    adapter_sha256: str
    rounds_s: tuple[float, ...]
    study_s: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same study over a folder and over Flower.

    Attributes
    ----------
    version : str
        Of Flower.
    domains : int
        How many there were.
    model : str
        Base model.
    folder, flower : Ran
        How it went.
    starts_s : float
        Seconds until Flower's processes ran.
    away_s : float or None
        With a SuperNode killed in the last round, how long that took more than the longest round before it.
    """

    version: str
    domains: int
    model: str
    folder: Ran
    flower: Ran
    starts_s: float
    away_s: float | None = None

    @property
    def same(self) -> bool:
        """Whether both ended with the same adapter, to the bit."""
        return self.folder.adapter_sha256 == self.flower.adapter_sha256

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        return asdict(self) | {"same": self.same}


def compare_flower(
    work: Path,
    *,
    model: str = "tiny",
    domains: int = 3,
    rounds: int = 2,
    steps: int = 2,
    kill: bool = False,
    authenticated: bool = False,
    on_progress: OnProgress = lambda what, done: None,
) -> Comparison:
    """Run a study twice with the same keys, shards and seed, each time with domains that are processes of their own.

    Parameters
    ----------
    work : Path
        A new folder.
    model : str
        Base model.
    domains, rounds, steps : int
        Of the study; the steps are of a round.
    kill : bool
        Kill a SuperNode when the last round begins, and start it again once another domain has answered.
    authenticated : bool
        Let in only SuperNodes whose keys were registered.
    on_progress : callable
        Called with what is done, and which part of the whole is over.

    Raises
    ------
    ConfigError
        If Flower cannot be installed.
    StudyError
        If the study or one of Flower's processes ends early.
    """
    on_progress("Flower's environment", 0.0)
    programs = flower_environment().parent
    on_progress("parties", 0.1)
    Federation.create(model=model, domains=domains, work=work / "folder").close()
    shutil.copytree(work / "folder", work / "flower")
    apart(work / "flower")
    on_progress("the study over a folder", 0.2)
    with Federation.take_up(work / "folder") as federation:
        folder = _run(federation, rounds, steps)
    on_progress("the study over Flower", 0.5)
    with contextlib.ExitStack() as stack:
        federation = stack.enter_context(Federation.take_up(work / "flower"))
        started = time.perf_counter()
        place = work / "flower" / "deployment"
        bed = stack.enter_context(FlowerBed(federation, programs, place, authenticated=authenticated))
        starts_s = time.perf_counter() - started
        watch = _Killer(bed, federation, rounds) if kill else _nobody
        flower = _run(federation, rounds, steps, watch)
    away_s = max(0.0, flower.rounds_s[-1] - max(flower.rounds_s[:-1], default=0.0)) if kill else None
    return Comparison(
        version=flower_version(),
        domains=domains,
        model=model,
        folder=folder,
        flower=flower,
        starts_s=starts_s,
        away_s=away_s,
    )


class _Killer:
    """Kills the SuperNode of the first domain when the last round begins, and starts it when another one is through."""

    def __init__(self, bed: FlowerBed, federation: Federation, rounds: int) -> None:
        self._bed, self._last = bed, rounds
        self._name, victim = next(iter(federation.domains.items()))
        self._victim, self._state = victim.config.email, "alive"

    def __call__(self, event: Event) -> None:
        if isinstance(event, TicketSent) and (event.kind, event.round) == ("train", self._last):
            if self._state == "alive":
                self._bed.kill_node(self._name)
                self._state = "killed"
        elif isinstance(event, UpdateReceived) and self._state == "killed":
            self._bed.start_node(self._name)
            self._state = "back"


def _nobody(event: Event) -> None:
    pass


def _run(federation: Federation, rounds: int, steps: int, watch: Callable[[Event], None] = _nobody) -> Ran:
    began: dict[int, float] = {}
    rounds_s: list[float] = []

    def clock(event: Event) -> None:
        if isinstance(event, RoundStarted):
            began[event.round] = time.perf_counter()
        elif isinstance(event, RoundFinished):
            rounds_s.append(time.perf_counter() - began[event.round])

    started = time.perf_counter()
    plan = federation.plan(rounds=rounds, steps=steps)
    study = Study.create(federation.researcher, "flower", plan, recipe=stock_recipe())
    study.submit()
    finished = study.run(federation.watch, clock, watch)
    return Ran(
        adapter_sha256=finished.adapter_sha256,
        rounds_s=tuple(rounds_s),
        study_s=time.perf_counter() - started,
    )
