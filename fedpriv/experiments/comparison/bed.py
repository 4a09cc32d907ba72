"""What all cases share: the tables, the base model, the shards, and a federation of real processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fedpriv.clinical import ClinicalTables, PreparedData, Telling, prepare, write_shard, write_synthetic
from fedpriv.clinical.shards import shard_by_hash
from fedpriv.experiments.comparison.cases import WHOLE, Case
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.federation import Federation
from fedpriv.experiments.trusted_jobs import TrustedJobs
from fedpriv.files import file_sha256, private_folder, sha256_hex
from fedpriv.study import Plan
from fedpriv.study.task import TaskChoice
from fedpriv.training.adapter import lora_layout
from fedpriv.training.base_model import LocalModel, ensure_model

DOMAINS = 3
"""Of every case but those that vary it: the three largest care units."""

SWEPT_ROUNDS = 2
"""Most rounds of a case that varies bytes or seconds, which are alike in every round."""

_QUESTIONED_TOKENS = 160
"""Of a mortality example: two days are not told in as few tokens as a plan's loss on texts needs."""


def digest_of_tables(folder: Path) -> str:
    """Return a SHA-256 over the names and contents of the tables in a folder."""
    files = sorted(path for path in folder.iterdir() if ".csv" in path.name.lower())
    return sha256_hex("\n".join(f"{path.name} {file_sha256(path)}" for path in files).encode())


class Bed:
    """Made when it is first needed, in a folder of its own that is made anew; a context manager that ends it.

    Parameters
    ----------
    folder : Path
        For the parties' folders.
    mimic : Path or None
        MIMIC-III tables; None makes synthetic ones.
    model, rounds, steps, max_tokens
        As of :class:`~fedpriv.experiments.comparison.record.Settings`.
    say : Callable[[str], None]
        Called with a sentence at each stage.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mimic: Path | None,
        model: str,
        rounds: int,
        steps: int,
        max_tokens: int,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder, self._mimic, self._say = folder, mimic, say
        self._rounds, self._steps, self._max_tokens = rounds, steps, max_tokens
        self._name = model
        self._federation: Federation | None = None
        self._runs = False
        self._judge: TrustedJobs | None = None
        self._shards: dict[tuple[int, str], dict[str, PreparedData]] = {}

    def __enter__(self) -> Bed:
        shutil.rmtree(self.folder, ignore_errors=True)
        private_folder(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        if self._judge is not None:
            self._judge.stop()
        if self._federation is not None:
            self._federation.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def model(self) -> LocalModel:
        """The base model."""
        return ensure_model(self._name)

    @property
    def tables(self) -> Path:
        """The tables of all patients."""
        if self._mimic is None:
            self._mimic = self.folder / "synthetic"
            write_synthetic(self._mimic)
        return self._mimic

    @property
    def federation(self) -> Federation:
        """Three domains by care unit; no process need run."""
        if self._federation is None:
            self._federation = Federation.create(
                mimic=self.tables,
                model=self._name,
                domains=DOMAINS,
                work=self.folder / "federation",
                say=self._say,
            )
        return self._federation

    def running(self) -> Federation:
        """Return the federation with each domain a process of its own."""
        if not self._runs:
            self.federation.start()
            self._runs = True
        return self.federation

    def judge(self, plan: Plan) -> TrustedJobs:
        """Return the worker that evaluates the adapters of all cases."""
        if self._judge is None:
            self._judge = TrustedJobs(plan, self.model, self.folder / "judge", threads=cores())
        return self._judge.of_plan(plan)

    def shards(self, domains: int = DOMAINS, task: TaskChoice | None = None) -> dict[str, PreparedData]:
        """Return the prepared examples of every domain: by care unit for three, else by a hash of the patient."""
        telling = Telling(task=task or TaskChoice())
        key = (domains, telling.task.kind)
        if key not in self._shards:
            self._shards[key] = self._of_federation(telling) if domains == DOMAINS else self._hashed(domains, telling)
        return self._shards[key]

    def _of_federation(self, telling: Telling) -> dict[str, PreparedData]:
        return {
            name: prepare(domain.config.data.location, self.folder / "own" / name, telling=telling)
            for name, domain in self.federation.domains.items()
        }

    def _hashed(self, domains: int, telling: Telling) -> dict[str, PreparedData]:
        folder, found = self.folder / f"hashed-{domains}", {}
        with ClinicalTables.open(self.tables) as tables:
            for shard in shard_by_hash(tables, domains):
                source = folder / "tables" / shard.name
                write_shard(tables, shard, source)
                found[shard.name] = prepare(source, folder / "own" / shard.name, telling=telling)
        return found

    def plan(self, case: Case) -> Plan:
        """Return the plan of a case, with the federation's cohort."""
        method = METHODS[case.method]
        base = self.federation.plan(
            rounds=self._rounds if case.part in WHOLE else min(self._rounds, SWEPT_ROUNDS),
            steps=self._steps,
            seed=case.seed,
            epsilon=case.epsilon if method.private else None,
            title=f"Comparison: {method.title}",
        )
        changes = self.sections(case, base)
        if case.part == "mortality":
            changes["task"] = TaskChoice(kind="mortality")
        return Plan.model_validate(dict(base) | changes)

    def sections(self, case: Case, base: Plan) -> dict[str, object]:
        """Return the sections of a case's plan that differ from a base plan's."""
        method, training = METHODS[case.method], dict(base.training) | {"max_tokens": self._max_tokens}
        if case.part == "mortality":
            training["max_tokens"] = max(self._max_tokens, _QUESTIONED_TOKENS)
        changes: dict[str, object] = {"training": training}
        if method.level is not None:
            sent = list(lora_layout(self.model.folder, base.lora))
            changes["protection"] = method.protection(case.bits, sent, case.sealed_share)
        return changes


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
