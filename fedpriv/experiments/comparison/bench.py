"""``fedpriv bench figures``: every case of a comparison, one after the other, each kept as soon as it is measured.

The figures are drawn from the records that are there, so that a comparison that was ended has figures, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import ConfigError
from fedpriv.experiments.comparison.bed import Bed, digest_of_tables
from fedpriv.experiments.comparison.cases import PARTS, WHOLE, Case, Part, cases_of
from fedpriv.experiments.comparison.federated import run_federated
from fedpriv.experiments.comparison.figures import charts_of
from fedpriv.experiments.comparison.judgement import Judged, claims_of, targets_of
from fedpriv.experiments.comparison.leakage import (
    LEAKAGE,
    WORKS,
    LeakageRecord,
    Work,
    leakage_cases,
    measure_leakage,
)
from fedpriv.experiments.comparison.made import Made
from fedpriv.experiments.comparison.manifest import manifest_of
from fedpriv.experiments.comparison.methods import METHODS, MethodName, in_order
from fedpriv.experiments.comparison.page import write_page
from fedpriv.experiments.comparison.printed import write_pictures
from fedpriv.experiments.comparison.record import Record, Records, Settings
from fedpriv.experiments.comparison.simulated import run_simulated
from fedpriv.experiments.comparison.summary import Row, rows_of
from fedpriv.experiments.comparison.summary_page import write_summary
from fedpriv.experiments.comparison.told import Told
from fedpriv.experiments.comparison.unfederated import run_unfederated
from fedpriv.files import folder_lock, write_json
from fedpriv.training.base_model import ensure_model

RUNS = "runs"
PAGE = "figures.html"


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
        Of every study, but for sweeps of what is alike in every round; optimiser steps of a round.
    max_tokens : int
        An example is cut after so many.
    parts, methods : sequences
        What is measured; all of it by default.
    leakage : bool
        Whether the updates are attacked.
    works : sequence of str
        Of which work the attacked updates are.
    command : str
        For the manifest.
    """

    out: Path
    mimic: Path | None = None
    model: str = "smollm2-135m-instruct"
    seeds: int = 3
    rounds: int = 16
    steps: int = 4
    max_tokens: int = 64
    parts: Collection[Part] = PARTS
    methods: Sequence[MethodName] = tuple(METHODS)
    leakage: bool = True
    works: Collection[Work] = WORKS
    command: str = "fedpriv bench figures"


def figures_options(*, out: Path, parts: Collection[str], methods: Collection[str], **given: Any) -> Options:
    """Return the options for parts (of which ``leakage`` is one) and methods by their names; all where none is named.

    Raises
    ------
    ConfigError
        If there is no such part or method.
    """
    every: list[str] = [*PARTS, "leakage"]
    for kind, wanted, known in (("part", parts, every), ("method", methods, list(METHODS))):
        if strange := sorted(set(wanted) - set(known)):
            raise ConfigError(f"There is no {kind} {strange[0]}", todo=f"choose among {', '.join(known)}")
    said = {
        "--mimic": given.get("mimic"),
        "--model": given.get("model"),
        "--seeds": given.get("seeds"),
        "--rounds": given.get("rounds"),
        "--steps": given.get("steps"),
        "--max-tokens": given.get("max_tokens"),
    }
    words = [f"{name} {'DIR' if name == '--mimic' else value}" for name, value in said.items() if value is not None]
    words += [f"--part {part}" for part in parts] + [f"--method {method}" for method in methods]
    return Options(
        out=out,
        parts=tuple(part for part in PARTS if not parts or part in parts),
        methods=in_order(method for method in METHODS if not methods or method in methods),
        leakage=not parts or "leakage" in parts,
        command=" ".join(["fedpriv bench figures", *words]),
        **given,
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured: the records, the rows of the table, what had to be reached, and the paper's claims."""

    records: list[Record]
    leaks: list[LeakageRecord]
    rows: list[Row]
    targets: list[Judged]
    claims: list[Judged]

    @classmethod
    def of(cls, records: list[Record], leaks: list[LeakageRecord]) -> Comparison:
        """Make the rest from the records."""
        rows = rows_of(records, leaks)
        return cls(records=records, leaks=leaks, rows=rows, targets=targets_of(rows, leaks), claims=claims_of(rows))

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        return {
            "figures_version": 2,
            "methods": [row.model_dump(mode="json") for row in self.rows],
            "targets": [asdict(target) for target in self.targets],
            "claims": [asdict(claim) for claim in self.claims],
            "runs": [record.model_dump(mode="json") for record in self.records],
            "leakage": [leak.model_dump(mode="json") for leak in self.leaks],
        }


def run_figures(
    options: Options,
    *,
    say: Callable[[str], None] = lambda sentence: None,
    on_progress: Callable[[str, float], None] = lambda what, done: None,
) -> Comparison:
    """Measure every case that is not there yet, and write the figures, the page and the manifest.

    Returns
    -------
    Comparison
        Of all records in the folder, those of earlier calls too.

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
    attacks = leakage_cases(options.methods, options.works) if options.leakage else []
    total = max(1, len(cases) + len(attacks))
    with (
        folder_lock(options.out / "bench.lock", holder="Another benchmark", todo="wait until it ends"),
        _bed(options, say) as bed,
    ):
        for number, case in enumerate(cases):
            on_progress(case.name, number / total)
            record = records.find(RUNS, case.name, Record)
            if record is None or record.case != case:
                records.keep(RUNS, case.name, _twin(case, records) or _run(case, bed))
        measure_leakage(
            bed, records, attacks, lambda what, done: on_progress(what, (len(cases) + done * len(attacks)) / total)
        )
        on_progress("drawing", 1.0)
        comparison = Comparison.of(records.every(RUNS, Record), records.every(LEAKAGE, LeakageRecord))
        _draw(comparison, records, options)
    return comparison


def _draw(comparison: Comparison, records: Records, options: Options) -> None:
    charts = charts_of(comparison.records, comparison.leaks)
    for chart in charts:
        write_pictures(chart, options.out)
    write_json(options.out / "figures.json", comparison.as_json(), mode=0o644)
    manifest = manifest_of(records, options.command)
    told = Told(
        charts=charts,
        rows=comparison.rows,
        targets=comparison.targets,
        claims=comparison.claims,
        manifest=manifest,
    )
    write_page(options.out / PAGE, told)
    write_summary(options.out / "README.md", told)
    write_json(options.out / "manifest.json", manifest, mode=0o644)


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
        options.out.with_name(f".{options.out.name}.work"),  # notes are in it: not where figures are shared from
        mimic=options.mimic,
        model=options.model,
        rounds=options.rounds,
        steps=options.steps,
        max_tokens=options.max_tokens,
        say=say,
    )


def _twin(case: Case, records: Records) -> Record | None:
    """Return what another part measured of the same study: DP-FL at its usual epsilon is also one of the methods."""
    if case.part != "epsilon":
        return None
    other = case.model_copy(update={"part": "methods"})
    record = records.find(RUNS, other.name, Record)
    return record.model_copy(update={"case": case}) if record is not None and record.case == other else None


def _run(case: Case, bed: Bed) -> Record:
    folder = bed.folder / "cases" / case.name
    try:
        if METHODS[case.method].level is None:
            record = run_unfederated(case, bed, folder)
        elif case.part in WHOLE:
            record = run_federated(case, bed, folder)
        else:
            record = run_simulated(case, bed, folder)
        return record.model_copy(update={"made": Made.now()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
