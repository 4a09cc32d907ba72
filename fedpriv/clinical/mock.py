"""The mock side of a dataset: what outsiders may see instead of the tables. It takes no private input at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedpriv.clinical.example_parts import example_lines
from fedpriv.clinical.examples import Example, examples
from fedpriv.clinical.rows import LeftOut
from fedpriv.clinical.schema import RELEASE_COLUMNS
from fedpriv.clinical.staging import staged_folder
from fedpriv.clinical.stock_templates import template_of
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.clinical.tables import ClinicalTables
from fedpriv.files import write_atomic, write_json
from fedpriv.study.task import TaskChoice

MOCK_PATIENTS = 24
ASKED_PATIENTS = 96
"""Where questions are asked: so many that rare answers occur."""


def write_mock(
    folder: Path, *, seed: int, task: TaskChoice | None = None, files: Mapping[str, str] | None = None
) -> None:
    """Write synthetic tables, the examples that training would see, and a description of both.

    Guarantee: nothing in ``folder`` depends on any patient; only ``seed``, ``task`` and its template go in.

    Parameters
    ----------
    folder : Path
        A new or empty folder; gets ``tables/``, ``examples.jsonl`` and ``schema.json``.
    seed : int
        Chooses the made-up patients.
    task : TaskChoice, optional
        What the examples are of; by default language modelling.
    files : Mapping[str, str], optional
        The request's files, with the template that ``task`` names, if any.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    """
    with staged_folder(folder) as temporary:
        task = task or TaskChoice()
        template = template_of(task, files or {})
        number = ASKED_PATIENTS if task.is_predictive else MOCK_PATIENTS
        write_synthetic(temporary / "tables", patients=number, seed=seed)
        patients: dict[int, list[Example]] = {}
        with ClinicalTables.open(temporary / "tables") as tables:
            for example in examples(tables, task, template, LeftOut()):
                patients.setdefault(example.subject_id, []).append(example)
        write_atomic(temporary / "examples.jsonl", example_lines(patients.values()))
        write_json(temporary / "schema.json", _schema(task, sum(map(len, patients.values()))))


def _schema(task: TaskChoice, count: int) -> dict[str, object]:
    fields = {"text": "one admission as text", "patient": "number of the patient in this file"}
    if task.is_predictive:
        fields |= {"questions": "what is asked about the text, the same of each", "answers": "yes or no to each"}
    return {
        "schema_version": 3,
        "synthetic": True,
        "task": task.kind,
        "examples": {"file": "examples.jsonl", "count": count, "fields": fields},
        "tables": {
            name: {"file": f"tables/{name}.csv.gz", "columns": list(columns)}
            for name, columns in RELEASE_COLUMNS.items()
        },
    }
