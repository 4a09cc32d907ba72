"""The baseline without federation: each domain trains alone, for as many steps, with the same code.

Only an experiment can measure it on everybody's held-out examples: whoever runs it holds all the shards.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedpriv.clinical import PreparedData
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.experiments.trusted_jobs import TrustedJobs
from fedpriv.files import private_folder
from fedpriv.study import Plan
from fedpriv.training.base_model import LocalModel
from fedpriv.training.private_round import PrivateSteps


@dataclass(frozen=True, kw_only=True)
class AloneLoss:
    """Held-out loss (nats a token) of the adapter that one domain trained alone.

    Attributes
    ----------
    everybody : float
        On all domains' held-out examples, token-weighted: what the federated adapter is measured on.
    own : float
        On the domain's own held-out examples.
    """

    everybody: float
    own: float


def train_alone(
    plan: Plan,
    shards: Mapping[str, PreparedData],
    model: LocalModel,
    workspace: Path,
    *,
    workers: int,
    threads: int,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, AloneLoss]:
    """Train every domain alone and measure each adapter on every domain's held-out examples.

    Parameters
    ----------
    plan : Plan
        Rounds, steps and everything else are the study's; a round starts from the domain's own last adapter.
    shards : Mapping[str, PreparedData]
        Prepared examples by domain name.
    workspace : Path
        A folder for the workers' files.
    workers, threads : int
        Training workers at the same time; threads of each.
    on_progress : Callable[[float], None]
        Called with the done fraction, from any thread.

    Raises
    ------
    TrainingError
        If a job fails.
    """
    workspace = private_folder(workspace.resolve())
    total = len(shards) * (plan.training.rounds + len(shards))
    done = itertools.count(1)
    kept = threading.local()
    started: list[TrustedJobs] = []

    def start_worker() -> None:
        folder = workspace / f"worker-{threading.get_ident()}"
        kept.jobs = TrustedJobs(
            plan, model, folder, threads=threads, on_job_done=lambda: on_progress(next(done) / total)
        )
        started.append(kept.jobs)

    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(shards))), initializer=start_worker) as pool:
        try:
            measured = pool.map(lambda name: _measure(kept.jobs, plan, name, shards), shards)
            return dict(zip(shards, measured, strict=True))
        finally:
            for jobs in started:
                jobs.stop()


def _measure(jobs: TrustedJobs, plan: Plan, name: str, shards: Mapping[str, PreparedData]) -> AloneLoss:
    """Train at one domain, with the noise that its own part in the study has, and evaluate at all."""
    adapter, folder, private = jobs.start_adapter(), jobs.workspace / name, _private(plan, shards[name])
    for number in range(1, plan.training.rounds + 1):
        adapter = jobs.train(shards[name], adapter, number, folder / f"round-{number}", private=private)
    found = {other: jobs.evaluate(data, adapter, folder / f"on-{other}") for other, data in shards.items()}
    tokens = sum(metrics["heldout_tokens"] for metrics in found.values())
    loss = sum(metrics["heldout_loss"] * metrics["heldout_tokens"] for metrics in found.values())
    return AloneLoss(everybody=loss / tokens, own=found[name]["heldout_loss"])


def _private(plan: Plan, data: PreparedData) -> PrivateSteps | None:
    privacy = plan.privacy
    if privacy is None or privacy.unit != "patient":
        return None
    return private_steps(privacy, planned_mechanism(plan, data.patients), data.patients)
