"""``fedpriv bench figures``: every case of a comparison, one after the other, each kept as soon as it is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.experiments.comparison.bed import Bed, digest_of_tables
from fedpriv.experiments.comparison.cases import PARTS, Case, Part, cases_of
from fedpriv.experiments.comparison.federated import run_federated
from fedpriv.experiments.comparison.methods import METHODS, MethodName
from fedpriv.experiments.comparison.record import Record, Records, Settings
from fedpriv.experiments.comparison.simulated import run_simulated
from fedpriv.experiments.comparison.unfederated import run_unfederated
from fedpriv.files import folder_lock
from fedpriv.training.base_model import ensure_model

RUNS = "runs"
WORK = ".work"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``fedpriv bench figures`` was asked for.

    Attributes
    ----------
    out : Path
        Folder of the records and figures; what is there already is not measured again.
    mimic : Path or None
        MIMIC-III tables; None makes synthetic ones.
    model : str
        Base model.
    seeds : int
        How often each method is run: with the seeds 0, 1, ...
    rounds, steps : int
        Of every study; optimiser steps of a round.
    max_tokens : int
        An example is cut after so many.
    parts, methods : sequences
        What is measured; all of it by default.
    """

    out: Path
    mimic: Path | None = None
    model: str = "smollm2-135m-instruct"
    seeds: int = 3
    rounds: int = 2
    steps: int = 4
    max_tokens: int = 64
    parts: Collection[Part] = PARTS
    methods: Sequence[MethodName] = tuple(METHODS)


def run_cases(
    options: Options,
    *,
    say: Callable[[str], None] = lambda sentence: None,
    on_progress: Callable[[str, float], None] = lambda what, done: None,
) -> tuple[Records, list[Record]]:
    """Measure every case that is not there yet.

    Returns
    -------
    Records, list of Record
        The folder; the records of all cases that were asked for.

    Raises
    ------
    ExistsError
        If ``out`` holds other things, or a comparison of other settings.
    LockError
        If another process measures there.
    FedprivError
        Any of a study's. What was measured before is kept, and the next call goes on from there.
    """
    records = Records(options.out, _settings(options))
    cases = cases_of(options.parts, options.methods, options.seeds)
    found: list[Record] = []
    with (
        folder_lock(options.out / "bench.lock", holder="Another benchmark", todo="wait until it ends"),
        _bed(options, say) as bed,
    ):
        for number, case in enumerate(cases):
            on_progress(case.name, number / len(cases))
            record = records.find(RUNS, case.name, Record)
            if record is None or record.case != case:
                record = _run(case, bed)
                records.keep(RUNS, case.name, record)
            found.append(record)
    on_progress("done", 1.0)
    return records, found


def _settings(options: Options) -> Settings:
    return Settings(
        model=options.model,
        model_digest=ensure_model(options.model).digest,
        tables="synthetic, seed 0" if options.mimic is None else digest_of_tables(options.mimic),
        rounds=options.rounds,
        steps=options.steps,
        max_tokens=options.max_tokens,
    )


def _bed(options: Options, say: Callable[[str], None]) -> Bed:
    return Bed(
        options.out / WORK,
        mimic=options.mimic,
        model=options.model,
        rounds=options.rounds,
        steps=options.steps,
        max_tokens=options.max_tokens,
        say=say,
    )


def _run(case: Case, bed: Bed) -> Record:
    folder = bed.folder / "cases" / case.name
    try:
        if METHODS[case.method].level is None:
            return run_unfederated(case, bed, folder)
        if case.part in ("methods", "mortality", "epsilon"):
            return run_federated(case, bed, folder)
        return run_simulated(case, bed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
