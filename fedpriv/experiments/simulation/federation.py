"""A simulated federation: a cohort with keys and an approved study, run as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv.aggregation import WeightFunction
from fedpriv.experiments.simulation.clock import run_in_virtual_time
from fedpriv.experiments.simulation.courier import SimulatedCourier
from fedpriv.experiments.simulation.domain import Relay, SimulatedDomain
from fedpriv.experiments.simulation.traces import Trace
from fedpriv.experiments.simulation.training import ModelTraining
from fedpriv.protection import IdentityKeys
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.researcher.events import Event, StudyFinished
from fedpriv.researcher.orchestrator import Orchestrator
from fedpriv.study import Plan, Result, validate_section
from fedpriv.training.adapter import starting_adapter

_RESEARCHER = "researcher@lab.example"
_RECIPE = 'def train(context):\n    raise NotImplementedError("a simulation runs no recipe")\n'


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """What came of running a simulated study.

    Attributes
    ----------
    finished : StudyFinished
        The study's own summary.
    events : list of Event
        All of them; their ``time_s`` are of this machine's clock.
    times : list of float
        The virtual second of each event.
    seconds : float
        How long the study took in virtual time.
    """

    finished: StudyFinished
    events: list[Event]
    times: list[float]
    seconds: float

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class SimulatedFederation:
    """Domains with real keys, ledgers and protection, whose notes, links and clocks are made up.

    Parameters
    ----------
    folder : Path
        Where everything lies; a federation is made again from it, as after a kill of all processes.
    traces : sequence of Trace
        One for each domain.
    parameters : int
        Parameters of the adapter, about.
    plan : mapping
        Sections of the plan that differ from the defaults, as in ``plan.yaml``.
    trainings : sequence of ModelTraining, optional
        Real training on notes, one for each domain, of the plan's model; it sets the adapter and its size.
    """

    def __init__(
        self,
        folder: Path,
        traces: Sequence[Trace],
        *,
        parameters: int = 2048,
        plan: Mapping[str, Any] | None = None,
        trainings: Sequence[ModelTraining] | None = None,
    ) -> None:
        self.folder, self.blobs = folder, dict[tuple[str, str, str], bytes]()
        self.answers: dict[tuple[str, str], Result] = {}
        emails = [f"domain-{number:03d}@site.example" for number in range(len(traces))]
        self.keys = {email: self._keys(email) for email in emails}
        self.researcher = self._researcher()
        self.study = self._study(plan or {})
        request = self.study.folder.submitted()
        self._trainings = dict(zip(emails, trainings, strict=True)) if trainings else {}
        self._start = self._first_adapter(parameters)
        self._request, self._traces = request, dict(zip(emails, traces, strict=True))
        self.domains = {email: self.domain(email) for email in emails}

    def domain(self, email: str) -> SimulatedDomain:
        """Return a domain made from its folder, as its service is when it starts."""
        return SimulatedDomain(
            self.folder / email,
            self.keys[email],
            self._request,
            trace=self._traces[email],
            start=self._start,
            relay=Relay(email, self.blobs),
            training=self._trainings.get(email),
        )

    def _first_adapter(self, parameters: int) -> dict[str, np.ndarray]:
        for training in self._trainings.values():
            plan = self.study.plan
            return starting_adapter(training.model.folder, plan.lora, plan.training.seed)
        half = parameters // 2
        return {
            "base_model.model.layers.0.q_proj.lora_A.weight": np.full((1, half), 0.01, np.float32),
            "base_model.model.layers.0.q_proj.lora_B.weight": np.zeros((parameters - half, 1), np.float32),
        }

    def run(self, *subscribers: Callable[[Event], None], weights: WeightFunction | None = None) -> SimulatedRun:
        """Run the study from where it is to its end, in virtual time.

        Raises
        ------
        StudyError
            As :meth:`fedpriv.researcher.Study.run`.
        """
        events, times = list[Event](), list[float]()

        async def work() -> tuple[StudyFinished, float]:
            from fedpriv.researcher.courier import now

            def emit(event: Event) -> None:
                events.append(event)
                times.append(now())
                for subscriber in subscribers:
                    subscriber(event)

            courier = SimulatedCourier(
                self.study.folder,
                self.study.folder.submitted(),
                self.researcher,
                emit,
                domains=self.domains,
                relay=Relay(_RESEARCHER, self.blobs),
                answers=self.answers,
            )
            orchestrator = Orchestrator(self.study.folder, courier, emit, weights)
            try:
                return await orchestrator.run(), now()
            finally:
                orchestrator.close()

        finished, seconds = run_in_virtual_time(work())
        return SimulatedRun(finished=finished, events=events, times=times, seconds=seconds)

    def digest(self, email: str) -> str:
        """Return the digest of a domain's newest adapter."""
        folder = self.domains[email].folder
        opened = folder.opened(self.study.plan.training.rounds)
        return opened.adapter_sha256 if opened else ""

    def _keys(self, email: str) -> IdentityKeys:
        path = self.folder / "keys" / f"{email}.json"
        if not path.exists():
            IdentityKeys.create(email, email.partition("@")[0], "11" * 32).save(path)
        return IdentityKeys.load(path)

    def _researcher(self) -> Researcher:
        home = self.folder / "researcher"
        if (home / "researcher.yaml").exists():
            return Researcher.open(home)
        config = ResearcherConfig(name="researcher", email=_RESEARCHER, store=str(self.folder / "store"))
        return Researcher.create(home, config)

    def _study(self, sections: Mapping[str, Any]) -> Study:
        if (self.researcher.studies / "simulation").exists():
            return Study.open(self.researcher, "simulation")
        plan = {
            "title": "A simulation",
            "researcher": {"email": _RESEARCHER, "fingerprint": self.researcher.keys.fingerprint},
            "cohort": [{"email": email, "fingerprint": keys.fingerprint} for email, keys in self.keys.items()],
            "base_model": {"name": "tiny"},
            **sections,
        }
        study = Study.create(
            self.researcher, "simulation", validate_section(Plan, plan, source="the simulation"), recipe=_RECIPE
        )
        study.folder.freeze(study.folder.draft())
        study.folder.keep_cohort({email: keys.identity for email, keys in self.keys.items()})
        return study
