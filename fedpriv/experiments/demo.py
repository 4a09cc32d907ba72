"""The demo: a whole study on one machine, every party a process of its own, nothing simulated."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedpriv.clinical import ClinicalTables, Shard, prepare, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice, ResourcesChoice
from fedpriv.errors import ExistsError, StudyError
from fedpriv.experiments.alone import AloneLoss, train_alone
from fedpriv.experiments.report import write_report
from fedpriv.files import folder_lock, private_folder, write_json
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.researcher.events import Event, StudyFinished, Subscriber, Waiting
from fedpriv.study import Plan, RequestDecision
from fedpriv.study.plan import (
    BaseModelChoice,
    MemberChoice,
    ProtectionChoice,
    TrainingChoice,
)
from fedpriv.training.base_model import LocalModel, ensure_model
from fedpriv.training.recipe import stock_recipe

MARKER = "summary.json"
_STUDY = "demo"
_RESEARCHER = "researcher@demo.fedpriv"


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
        ``sealed``, ``ckks`` or ``plain``.
    seed : int
        Of the synthetic tables, the adapter and the order of examples.
    out : Path
        Where the results go.
    work : Path
        Where the parties' folders go; made anew each time.
    """

    mimic: Path | None = None
    model: str = "smollm2-135m-instruct"
    domains: int = 3
    rounds: int = 3
    steps: int = 4
    protection: Literal["sealed", "ckks", "plain"] = "sealed"
    seed: int = 0
    out: Path = Path("fedpriv-demo")
    work: Path = Path(".fedpriv/demo")


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
    """

    finished: StudyFinished
    alone: dict[str, AloneLoss]
    rounds: list[dict[str, Any]]
    decisions: dict[str, RequestDecision]
    seconds: dict[str, float]
    adapter: Path
    names: dict[str, str]
    options: DemoOptions

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
            "domains": [{"name": name, "email": email} for email, name in self.names.items()],
        }

    @property
    def alone_mean(self) -> float:
        """Mean held-out loss of the domains training alone, each on everybody's held-out examples."""
        return sum(loss.everybody for loss in self.alone.values()) / len(self.alone)


Stage = Callable[[str], None]


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
    say: Stage = lambda sentence: None
    on_progress: Callable[[str, float], None] = lambda stage, fraction: None
    _seconds: dict[str, float] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

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
        with tempfile.TemporaryDirectory() as scratch:
            with self._timed("data"):
                tables, shards = self._read_tables(Path(scratch))
            with self._timed("model"):
                model = ensure_model(options.model, on_progress=self.on_progress)
            with folder_lock(
                options.work.parent / "demo.lock", holder="The demo", todo="wait until the other one ends"
            ):
                shutil.rmtree(options.work, ignore_errors=True)
                private_folder(options.work)
                with self._timed("data"):
                    sources = self._write_shards(tables, shards)
                with self._timed("start"):
                    researcher, domains = self._create_parties(sources)
                plan = self._make_plan(researcher, domains, model)
                with self._running(domains):
                    study, decisions, finished = self._study(researcher, plan, subscribers)
                with self._timed("baseline"):
                    alone = self._train_alone(plan, domains, model)
                return self._finish(study, domains, decisions, finished, alone)

    # -- stages -----------------------------------------------------------------------------------------------------

    def _read_tables(self, scratch: Path) -> tuple[ClinicalTables, list[Shard]]:
        mimic = self.options.mimic
        if mimic is None:
            self.say("making synthetic tables in the MIMIC-III schema (no patient is real)")
            mimic = scratch / "synthetic"
            write_synthetic(mimic, seed=self.options.seed)
        else:
            self.say(f"reading MIMIC-III tables from {mimic}")
        tables = ClinicalTables.open(mimic)
        return tables, shard_by_care_unit(tables, self.options.domains)

    def _write_shards(self, tables: ClinicalTables, shards: list[Shard]) -> dict[str, Path]:
        sources = {}
        for shard in shards:
            sources[shard.name] = self.options.work / "shards" / shard.name
            write_shard(tables, shard, sources[shard.name])
        units = ", ".join(f"{shard.name} ({len(shard.subject_ids)} patients)" for shard in shards)
        self.say(f"one domain for each first care unit: {units}")
        return sources

    def _create_parties(self, sources: dict[str, Path]) -> tuple[Researcher, dict[str, Domain]]:
        options, store = self.options, str((self.options.work / "store").resolve())
        researcher = Researcher.create(
            options.work / "researcher", ResearcherConfig(name="researcher", email=_RESEARCHER, store=store)
        )
        researcher.publish_identity()
        pin = MemberChoice(email=_RESEARCHER, fingerprint=researcher.keys.fingerprint)
        threads = max(1, (os.cpu_count() or 1) // len(sources))
        domains = {}
        for name, source in sources.items():
            config = DomainConfig(
                name=name,
                email=f"{name}@demo.fedpriv",
                store=store,
                data=DataChoice(source=str(source.resolve())),
                researchers=(pin,),
                policy=PolicyChoice(
                    approve="stock-recipe",
                    release="after-study",
                    max_rounds=1000,
                    minimum_cohort=2,
                    protection=("sealed", "ckks", "plain"),
                ),
                resources=ResourcesChoice(threads=threads),
            )
            domains[name] = Domain.create(options.work / "domains" / name, config)
        return researcher, domains

    def _make_plan(self, researcher: Researcher, domains: dict[str, Domain], model: LocalModel) -> Plan:
        options = self.options
        return Plan(
            title="Demo: LoRA on ICU notes",
            researcher=MemberChoice(email=_RESEARCHER, fingerprint=researcher.keys.fingerprint),
            cohort=tuple(MemberChoice(email=d.config.email, fingerprint=d.keys.fingerprint) for d in domains.values()),
            base_model=BaseModelChoice(name=options.model, digest=model.digest),
            training=TrainingChoice(rounds=options.rounds, steps=options.steps, seed=options.seed),
            protection=ProtectionChoice(level=options.protection),
        )

    def _study(
        self, researcher: Researcher, plan: Plan, subscribers: tuple[Subscriber, ...]
    ) -> tuple[Study, dict[str, RequestDecision], StudyFinished]:
        with self._timed("approval"):
            study = Study.create(researcher, _STUDY, plan, recipe=stock_recipe())
            self.say("submitting the code request to every domain")
            study.submit(on_wait=self.say)
            decisions = study.wait_for_decisions(self._watch)
        for email, decision in decisions.items():
            self.say(f"{email}: {decision.decision} ({decision.reason}); checked: {'; '.join(decision.checked)}")
        with self._timed("rounds"):
            finished = study.run(self._watch, *subscribers)
        with self._timed("release"):
            study.release(self.options.work / "results" / "adapter", self._watch)
        return study, decisions, finished

    def _train_alone(self, plan: Plan, domains: dict[str, Domain], model: LocalModel) -> dict[str, AloneLoss]:
        self.say("for comparison: each domain trains alone for as many steps (only a demo may look at all shards)")
        shards = {name: prepare(Path(d.config.data.source), d.folder.data) for name, d in domains.items()}
        cores = os.cpu_count() or 1
        return train_alone(
            plan,
            shards,
            model,
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
        )
        self._collect(study, domains)
        write_report(result, results)
        write_json(results / MARKER, result.as_json(), mode=0o644)
        shutil.rmtree(options.out, ignore_errors=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(results, options.out)
        return result

    def _collect(self, study: Study, domains: dict[str, Domain]) -> None:
        """Copy the history and the verified ledgers beside the adapter."""
        results = self.options.work / "results"
        shutil.copyfile(study.folder.history_path, results / "history.jsonl")
        (results / "ledgers").mkdir()
        for name, domain in domains.items():
            domain.ledger.verify()
            shutil.copyfile(domain.folder.ledger_path, results / "ledgers" / f"{name}.jsonl")

    # -- processes --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _running(self, domains: dict[str, Domain]) -> Iterator[None]:
        """Run every domain as a process of its own while the block runs; they also end if this process is killed."""
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            for name, domain in domains.items():
                self._processes[name] = _serve(domain)
            self.say(f"started {len(domains)} domain processes")
            yield
        finally:
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                _end(process)
            signal.signal(signal.SIGTERM, previous)

    def _watch(self, event: Event) -> None:
        """End the wait for a domain whose process is gone."""
        if not isinstance(event, Waiting):
            return
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = (self.options.work / "domains" / name / "serve.log").read_text(errors="replace").splitlines()
                raise StudyError(
                    f"The domain {name} ended (exit code {process.returncode}): {log[-1] if log else 'no message'}",
                    kept=f"Everything is in {self.options.work}",
                    todo="read its serve.log there",
                )

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started


def _serve(domain: Domain) -> subprocess.Popen[bytes]:
    root = domain.folder.root
    with (root / "serve.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fedpriv", "domain", "serve", str(root), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the domains in order
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _check_output(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ExistsError(
            f"{out} holds something that no demo wrote",
            kept="It was left as it is",
            todo="give another folder with --out",
        )
