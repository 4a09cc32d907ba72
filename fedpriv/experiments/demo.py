"""The demo: a whole study on one machine, every party a process of its own, nothing simulated."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from fedpriv.clinical import prepare
from fedpriv.domain import Domain
from fedpriv.domain.privacy_budget import Charge, PrivacyBudget
from fedpriv.errors import ExistsError
from fedpriv.experiments.alone import AloneLoss, train_alone
from fedpriv.experiments.federation import DEFAULT_WORK, Federation
from fedpriv.experiments.report import write_report
from fedpriv.files import write_json
from fedpriv.researcher import Study
from fedpriv.researcher.events import StudyFinished, Subscriber
from fedpriv.study import Plan, RequestDecision
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.training.recipe import stock_recipe

MARKER = "summary.json"
_STUDY = "demo"


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What ``fedpriv demo`` was asked for.

    Attributes
    ----------
    mimic : Path or None
        Folder with real MIMIC-III tables; None makes synthetic ones.
    model : str
        Base model.
    domains, rounds, steps : int
        Number of domains; rounds; optimiser steps a round.
    protection : str
        The level of all tensors, one of :data:`~fedpriv.study.protection_choice.ProtectionLevel`.
    bits : int
        Bits of a quantised value (``sealed`` and ``masked``).
    epsilon : float, optional
        Differential privacy by patients: epsilon of the study, and budget of each domain's data.
    seed : int
        Of the synthetic tables, the adapter and the order of examples.
    out : Path
        Where the results go.
    work : Path
        Where the parties' folders go; made anew each time.
    report_to : tuple of str
        Experiment trackers; what they write into files goes to ``out``, too.
    """

    mimic: Path | None = None
    model: str = "smollm2-135m-instruct"
    domains: int = 3
    rounds: int = 3
    steps: int = 4
    protection: ProtectionLevel = "sealed"
    bits: int = 10
    epsilon: float | None = None
    seed: int = 0
    out: Path = Path("fedpriv-demo")
    work: Path = DEFAULT_WORK
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What came out.

    Attributes
    ----------
    finished : StudyFinished
        Losses of the federated adapter.
    alone : dict of AloneLoss
        Losses of each domain training alone, by its short name.
    rounds : list of dict
        One record a finished round.
    decisions : dict
        What each data owner's policy decided and checked.
    seconds : dict
        Wall clock of the demo's stages.
    adapter : Path
        The released PEFT folder.
    names : dict
        Short name of each domain by its address.
    options : DemoOptions
        What was asked for.
    spent : dict of Charge
        The last entry of each domain's privacy budget, by its short name; empty without differential privacy.
    """

    finished: StudyFinished
    alone: dict[str, AloneLoss]
    rounds: list[dict[str, Any]]
    decisions: dict[str, RequestDecision]
    seconds: dict[str, float]
    adapter: Path
    names: dict[str, str]
    options: DemoOptions
    spent: dict[str, Charge]

    def as_json(self) -> dict[str, Any]:
        """Return the one object that ``fedpriv demo --json`` prints; losses in nats a token, sizes in bytes."""
        last = self.rounds[-1]
        parts = {name for record in self.rounds for name in record["seconds"]}
        means = {name: sum(r["seconds"].get(name, 0.0) for r in self.rounds) / len(self.rounds) for name in parts}
        own = {self.names[e]: loss for e, loss in self.finished.loss_after_by_domain.items()}
        return {
            "loss": {
                "before": self.finished.loss_before,
                "after": self.finished.loss_after,
                "alone": {name: loss.everybody for name, loss in self.alone.items()},
                "own_examples": {name: {"alone": loss.own, "after": own[name]} for name, loss in self.alone.items()},
            },
            "rounds": self.rounds,
            "bytes": {"up": last["bytes_up"], "down": last["bytes_down"], "plain_fp32": 4 * last["parameters"]},
            "seconds": {"round": means, **self.seconds},
            "adapter": str(self.adapter),
            "privacy": {name: charge.as_facts() for name, charge in self.spent.items()},
            "domains": [{"name": name, "email": email} for email, name in self.names.items()],
        }

    @property
    def alone_mean(self) -> float:
        """Mean held-out loss of the domains training alone, each on everybody's held-out examples."""
        return sum(loss.everybody for loss in self.alone.values()) / len(self.alone)


@dataclass(kw_only=True)
class Demo:
    """Runs the demo's stages in order; see :meth:`run`.

    Parameters
    ----------
    options : DemoOptions
        What was asked for.
    say : Callable[[str], None]
        Called with a sentence at each stage.
    on_progress : Callable[[str, float], None]
        Called with a stage's name and its fraction, for downloads and conversions.
    """

    options: DemoOptions
    say: Callable[[str], None] = lambda sentence: None
    on_progress: Callable[[str, float], None] = lambda stage, fraction: None
    _seconds: dict[str, float] = field(default_factory=dict)

    def run(self, *subscribers: Subscriber) -> DemoResult:
        """Run everything from data to released adapter, and end every process that was started.

        Parameters
        ----------
        *subscribers : Callable[[Event], None]
            Called for each event of the study.

        Raises
        ------
        FedprivError
            Any of ours. What is wrong with the input is found before anything is written.
        """
        options = self.options
        _check_output(options.out)
        with _interruptible() as calm:
            with self._timed("data and model"):
                federation = Federation.create(
                    mimic=options.mimic,
                    model=options.model,
                    domains=options.domains,
                    seed=options.seed,
                    work=options.work,
                    epsilon=options.epsilon,
                    say=self.say,
                    on_progress=self.on_progress,
                )
            plan = federation.plan(
                rounds=options.rounds,
                steps=options.steps,
                protection=options.protection,
                bits=options.bits,
                seed=options.seed,
                epsilon=options.epsilon,
            )
            try:
                federation.start()
                self.say(f"started {len(federation.domains)} domain processes")
                study, decisions, finished = self._study(federation, plan, subscribers)
                federation.stop()
                with self._timed("baseline"):
                    alone = self._train_alone(plan, federation)
                return self._finish(study, federation.domains, decisions, finished, alone)
            finally:
                calm()
                federation.close()

    def _study(
        self, federation: Federation, plan: Plan, subscribers: tuple[Subscriber, ...]
    ) -> tuple[Study, dict[str, RequestDecision], StudyFinished]:
        with self._timed("approval"):
            study = Study.create(federation.researcher, _STUDY, plan, recipe=stock_recipe())
            self.say("submitting the code request to every domain")
            study.submit(on_wait=self.say)
            decisions = study.wait_for_decisions(federation.watch)
        for email, decision in decisions.items():
            self.say(f"{email}: {decision.decision} ({decision.reason}); checked: {'; '.join(decision.checked)}")
        with self._timed("rounds"):
            finished = study.run(federation.watch, *subscribers, report_to=self.options.report_to)
        with self._timed("release"):
            study.release(self.options.work / "results" / "adapter", federation.watch)
        return study, decisions, finished

    def _train_alone(self, plan: Plan, federation: Federation) -> dict[str, AloneLoss]:
        self.say("for comparison: each domain trains alone for as many steps (only a demo may look at all shards)")
        shards = {
            name: prepare(domain.config.data.location, domain.folder.data)
            for name, domain in federation.domains.items()
        }
        cores = os.cpu_count() or 1
        return train_alone(
            plan,
            shards,
            federation.model,
            self.options.work / "alone",
            workers=min(cores, len(shards)),
            threads=max(1, cores // len(shards)),
            on_progress=lambda fraction: self.on_progress("each domain alone", fraction),
        )

    def _finish(
        self,
        study: Study,
        domains: dict[str, Domain],
        decisions: dict[str, RequestDecision],
        finished: StudyFinished,
        alone: dict[str, AloneLoss],
    ) -> DemoResult:
        """Put adapter, report, history and ledgers in the place of an earlier demo's output, all at once."""
        options, results = self.options, self.options.work / "results"
        result = DemoResult(
            finished=finished,
            alone=alone,
            rounds=[record for record in study.history.records() if record["event"] == "RoundFinished"],
            decisions=decisions,
            seconds={name: round(value, 3) for name, value in self._seconds.items()},
            adapter=options.out / "adapter",
            names={domain.config.email: name for name, domain in domains.items()},
            options=options,
            spent={
                name: charges[-1]
                for name, domain in domains.items()
                if (charges := PrivacyBudget(domain.ledger).charges())
            },
        )
        self._collect(study, domains)
        write_report(result, results)
        write_json(results / MARKER, result.as_json(), mode=0o644)
        shutil.rmtree(options.out, ignore_errors=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(results, options.out)
        return result

    def _collect(self, study: Study, domains: dict[str, Domain]) -> None:
        """Copy the history, the trackers' files and the verified ledgers beside the adapter."""
        results = self.options.work / "results"
        shutil.copyfile(study.folder.history_path, results / "history.jsonl")
        if study.trackers_folder.exists():
            shutil.copytree(study.trackers_folder, results / "trackers", symlinks=True)
        (results / "ledgers").mkdir()
        for name, domain in domains.items():
            domain.ledger.verify()
            shutil.copyfile(domain.folder.ledger_path, results / "ledgers" / f"{name}.jsonl")

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt, again each second until it gets through.

    Some libraries swallow an interrupt that arrives while they are imported. What is yielded ends the repeating, for
    the time of putting things away.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        raise KeyboardInterrupt

    def calm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield calm
    finally:
        calm()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_output(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ExistsError(
            f"{out} holds something that no demo wrote",
            kept="It was left as it is",
            todo="give another folder with --out",
        )
