"""``fedpriv bench domain``: what a data owner's side adds to a round: waiting, starting, checking, recording.

Real parts throughout: two domains as processes of their own over an encrypted store, a training worker in its walls, a
ledger on the disk. ``docs/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain import Domain, ResourcesChoice
from fedpriv.domain.folder import DataChoice, DomainConfig
from fedpriv.domain.gatekeeper import check_metrics, check_update, metric_bounds
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import StudyError
from fedpriv.experiments.federation import Federation
from fedpriv.experiments.target import Target
from fedpriv.files import private_folder, write_atomic
from fedpriv.researcher import Study
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice, TrainingChoice
from fedpriv.training.adapter import load_state, save_state, starting_adapter
from fedpriv.training.base_model import ensure_model
from fedpriv.training.recipe import stock_recipe

OnProgress = Callable[[str, float], None]
WHOLE_LEDGER = 100_000
_APPENDS = 300
_CHECKS = 5


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured; seconds are wall clock, and medians where several were taken.

    Attributes
    ----------
    poll_s : float
        How often the domains and the researcher ask the store for news.
    ticket_s, slowest_ticket_s : float
        From sending a ticket that asks for nothing to its signed answer, encrypted both ways.
    tickets : int
        How many were sent.
    walls : str
        What stood around the worker.
    worker_s : float
        Until a new worker, with torch and peft loaded, was ready: the alternative to forking one.
    child_s : float
        From asking a warm worker for a job to the first line of work in a process of its own, behind its walls.
    model : str
        Of the round.
    round_s : float
        Training of one round of four steps, from asking for it to its files.
    gatekeeper_s : float
        Checking its update and its metrics.
    append_ms : float
        One entry of the ledger, flushed to the disk.
    entries, verify_s : int, float
        A ledger and the time to verify all of it.
    """

    poll_s: float
    ticket_s: float
    slowest_ticket_s: float
    tickets: int
    walls: str
    worker_s: float
    child_s: float
    model: str
    round_s: float
    gatekeeper_s: float
    append_ms: float
    entries: int
    verify_s: float

    @property
    def gatekeeper_share(self) -> float:
        """Part of a round that the gatekeeper takes."""
        return self.gatekeeper_s / (self.round_s + self.gatekeeper_s)

    @property
    def verify_whole_s(self) -> float:
        """Seconds to verify 100,000 entries, in proportion to those that were."""
        return self.verify_s * WHOLE_LEDGER / self.entries

    def as_json(self) -> dict[str, Any]:
        """Return everything, the ratios and the targets included."""
        return asdict(self) | {
            "gatekeeper_share": self.gatekeeper_share,
            "worker_over_child": self.worker_s / self.child_s,
            "verify_100000_s": self.verify_whole_s,
            "targets": [asdict(target) for target in targets(self)],
        }


def targets(report: Report) -> list[Target]:
    """Return what must be reached, and what was."""

    def at_most(what: str, value: float, most: float, form: str) -> Target:
        return Target(what=what, wanted=f"<= {most:{form}}", measured=f"{value:{form}}", met=value <= most)

    return [
        at_most("seconds from a ticket that asks for nothing to its answer", report.ticket_s, 1.5, ".2f"),
        at_most("seconds to start a job's process", report.child_s, 0.3, ".3f"),
        at_most("gatekeeper's part of a round", report.gatekeeper_share, 0.05, ".2%"),
        at_most("milliseconds to append to the ledger", report.append_ms, 5.0, ".2f"),
        at_most("seconds to verify 100,000 entries", report.verify_whole_s, 5.0, ".2f"),
    ]


def run_domain_bench(
    *,
    model: str = "smollm2-135m-instruct",
    tickets: int = 10,
    entries: int = WHOLE_LEDGER,
    on_progress: OnProgress = lambda what, done: None,
) -> Report:
    """Measure everything; a few minutes, most of them for the ledger.

    Parameters
    ----------
    model : str
        Base model of the round.
    tickets, entries : int
        How many tickets are sent, and how long the ledger is.
    on_progress : Callable[[str, float], None]
        Called with what is measured and the part that is done.
    """
    with tempfile.TemporaryDirectory(prefix="fedpriv-bench-") as name:
        folder = private_folder(Path(name))
        on_progress("tickets to two domains", 0.0)
        seconds, poll_s = _ticket_seconds(folder, tickets)
        on_progress(f"a round of {model}", 0.2)
        round_of = _round(folder, model)
        on_progress("the ledger", 0.4)
        ledger = _ledger(folder, entries, lambda done: on_progress("the ledger", 0.4 + 0.6 * done))
    return Report(
        poll_s=poll_s,
        ticket_s=statistics.median(seconds),
        slowest_ticket_s=max(seconds),
        tickets=len(seconds),
        model=model,
        **round_of,
        **ledger,
    )


def _ticket_seconds(folder: Path, tickets: int) -> tuple[list[float], float]:
    """Return the seconds of each ticket that asked for nothing, and the domains' poll."""
    with Federation.create(model="tiny", domains=2, work=folder / "federation") as federation:
        study = Study.create(federation.researcher, "bench", federation.plan(rounds=1, steps=1), recipe=stock_recipe())
        study.submit()
        decisions = study.wait_for_decisions(federation.watch)
        if any(decision.decision != "approved" for decision in decisions.values()):
            raise StudyError("The domains of the benchmark did not approve it", todo="report this, please")
        study.ping()  # the first one fetches the base model
        found = study.ping(times=tickets)
        poll_s = max(domain.config.resources.poll_seconds for domain in federation.domains.values())
    return [second for seconds in found.values() for second in seconds], poll_s


def _round(folder: Path, model: str) -> dict[str, Any]:
    """Train one round in its walls and check what came out."""
    write_synthetic(folder / "tables", seed=0)
    prepared = prepare(folder / "tables", folder / "data")
    local_model, study = ensure_model(model), StudyFolder(folder / "study")
    members = tuple(MemberChoice(email=f"{n}@bench.fedpriv", fingerprint=n * 64) for n in "ab")
    plan = Plan(
        researcher=MemberChoice(email="c@bench.fedpriv", fingerprint="c" * 64),
        cohort=members,
        base_model=BaseModelChoice(name=model),
        training=TrainingChoice(rounds=1, steps=4),
    )
    write_atomic(folder / "bundle" / "train.py", stock_recipe().encode())
    save_state(starting_adapter(local_model.folder, plan.lora, 0), study.adapter(0))
    training = LocalTraining(
        plan=plan,
        folder=study,
        recipe=folder / "bundle" / "train.py",
        prepared=prepared,
        model=local_model,
        resources=ResourcesChoice(),
    )
    try:
        started = time.perf_counter()
        training.start()
        worker_s = time.perf_counter() - started
        starts = []
        for number in range(_CHECKS):
            training.run("evaluate", 1, 0, study.output(f"evaluate-{number}"), lambda step, steps: None)
            starts.append(training.report.start_s)
        output, started = study.output("train"), time.perf_counter()
        training.run("train", 1, 0, output, lambda step, steps: None)
        round_s, walls = time.perf_counter() - started, training.walls
    finally:
        training.stop()
    before = load_state(study.adapter(0))
    bounds = metric_bounds(plan, examples=prepared.examples, heldout_examples=prepared.heldout_examples)
    checks = []
    for _ in range(_CHECKS):
        started = time.perf_counter()
        check_update(output / "adapter_after.safetensors", before, plan, 1)
        check_metrics(output / "metrics.json", plan.leaving_metrics, bounds)
        checks.append(time.perf_counter() - started)
    return {
        "walls": walls,
        "worker_s": worker_s,
        "child_s": statistics.median(starts),
        "round_s": round_s,
        "gatekeeper_s": statistics.median(checks),
    }


def _ledger(folder: Path, entries: int, on_done: Callable[[float], None]) -> dict[str, Any]:
    """Fill a domain's ledger and verify it as a command of its own would: everything is read from the disk."""
    config = DomainConfig(
        name="bench", email="bench@bench.fedpriv", store=str(folder), data=DataChoice(source=str(folder))
    )
    domain, appends = Domain.create(folder / "bench", config), []
    for number in range(entries - 1):
        started = time.perf_counter()
        domain.ledger.append("update.sealed", once=f"bench/{number}", study="0" * 64, round=number, seconds=1.5)
        if number < _APPENDS or number > entries - _APPENDS:
            appends.append(time.perf_counter() - started)
        if number % 1000 == 0:
            on_done(number / entries)
    again = Domain.open(folder / "bench")
    started = time.perf_counter()
    found = again.ledger.verified()
    return {
        "append_ms": 1e3 * statistics.median(appends),
        "entries": len(found),
        "verify_s": time.perf_counter() - started,
    }
