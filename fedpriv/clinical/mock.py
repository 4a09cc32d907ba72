"""The mock side of a dataset: what outsiders may see instead of the tables. It takes no private input at all."""

from __future__ import annotations

from pathlib import Path

from fedpriv.clinical.example_parts import example_lines
from fedpriv.clinical.examples import Example, narratives
from fedpriv.clinical.schema import RELEASE_COLUMNS
from fedpriv.clinical.staging import staged_folder
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.clinical.tables import ClinicalTables
from fedpriv.files import write_atomic, write_json

MOCK_PATIENTS = 24


def write_mock(folder: Path, *, seed: int) -> None:
    """Write synthetic tables, the examples that training would see, and a description of both.

    Guarantee: nothing in ``folder`` depends on any patient; only ``seed`` goes in.

    Parameters
    ----------
    folder : Path
        A new or empty folder; gets ``tables/``, ``examples.jsonl`` and ``schema.json``.
    seed : int
        Chooses the made-up patients.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    """
    with staged_folder(folder) as temporary:
        write_synthetic(temporary / "tables", patients=MOCK_PATIENTS, seed=seed)
        with ClinicalTables.open(temporary / "tables") as tables:
            patients: dict[int, list[Example]] = {}
            for narrative in narratives(tables):
                patients.setdefault(narrative.subject_id, []).append(narrative)
        write_atomic(temporary / "examples.jsonl", example_lines(patients.values()))
        write_json(temporary / "schema.json", _schema(sum(map(len, patients.values()))))


def _schema(examples: int) -> dict[str, object]:
    fields = {"text": "one admission as text", "patient": "number of the patient in this file"}
    return {
        "schema_version": 2,
        "synthetic": True,
        "examples": {"file": "examples.jsonl", "count": examples, "fields": fields},
        "tables": {
            name: {"file": f"tables/{name}.csv.gz", "columns": list(columns)}
            for name, columns in RELEASE_COLUMNS.items()
        },
    }
