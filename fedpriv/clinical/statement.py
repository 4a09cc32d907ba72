"""The domain's statement about its shard, from the record and the examples that were told of it."""

from __future__ import annotations

from collections.abc import Mapping

from fedpriv.clinical.lab_units import ANALYTES
from fedpriv.clinical.record import RECORD_VERSION
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.stock_templates import stock_template, template_of
from fedpriv.clinical.store import PreparedData
from fedpriv.clinical.tally import Tally
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.study.shard import ShardStatement, coarse
from fedpriv.study.task import TaskChoice, TaskKind
from fedpriv.study.template import SECTION_PREFIX

_Reads = tuple[tuple[str, str], ...]
_PERSON: _Reads = (("PATIENTS", "gender"),)
_STAY: _Reads = (("ADMISSIONS", "dischtime"), ("ADMISSIONS", "hospital_expire_flag"))
_READS: dict[str, _Reads] = {
    "person": _PERSON,
    "they": _PERSON,
    "sex": _PERSON,
    "context": (*_PERSON, ("ICUSTAYS", "first_careunit"), ("ADMISSIONS", "admission_type")),
    "admission_type": (("ADMISSIONS", "admission_type"),),
    "came_from": (("ADMISSIONS", "admission_location"),),
    "problem": (("ADMISSIONS", "diagnosis"),),
    "intensive_care": (("ICUSTAYS", "first_careunit"),),
    "drugs": (("PRESCRIPTIONS", "drug"),),
    "labs": (("LABEVENTS", "charttime"), ("LABEVENTS", "valuenum")),
    "notes": (("NOTEEVENTS", "text"),),
    "diagnoses": (("DIAGNOSES_ICD", "icd9_code"), ("D_ICD_DIAGNOSES", "long_title")),
    "procedures": (("PROCEDURES_ICD", "icd9_code"), ("D_ICD_PROCEDURES", "long_title")),
    "outcome": (*_STAY, ("ADMISSIONS", "discharge_location")),
}
"""What a template's fields are made of; those that are not named here are in every record."""

_ANSWERS: dict[TaskKind, _Reads] = {
    "language_modelling": (),
    "mortality": _STAY,
    "icd9_chapters": (("DIAGNOSES_ICD", "icd9_code"),),
    "readmission": (*_STAY, ("ADMISSIONS", "admission_type")),
}


def schema_digest() -> str:
    """Return the SHA-256 (hex) of the common record's rules: tables, columns, types, codes, keys, units."""
    tables = [
        [spec.name, spec.key, [[c.name, c.type, c.filled, c.codes] for c in spec.needed]] for spec in SPECS.values()
    ]
    units = [[analyte.item, analyte.unit] for analyte in ANALYTES]
    return sha256_hex(b"fedpriv record schema 1\n" + canonical_json([RECORD_VERSION, tables, units]))


def task_digest(task: TaskChoice, files: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of a task with the text of its template.

    Parameters
    ----------
    files : Mapping[str, str]
        The request's files.
    """
    template = stock_template(task.kind) if task.template is None else files[task.template]
    body = [task.model_dump(mode="json"), sha256_hex(template.encode())]
    return sha256_hex(b"fedpriv task 1\n" + canonical_json(body))


def needed_columns(task: TaskChoice, files: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the tables that a task and its template read, each to the columns that texts or answers depend on."""
    fields = template_of(task, files).fields
    reads = [_READS.get("notes" if name.startswith(SECTION_PREFIX) else name, ()) for name in sorted(fields)]
    if not task.categories:
        reads = [read for read in reads if not any(table == "NOTEEVENTS" for table, _ in read)]
    found: dict[str, set[str]] = {}
    for table, column in {pair for read in (*reads, _ANSWERS[task.kind]) for pair in read}:
        found.setdefault(table, set()).add(column)
    return {table: tuple(sorted(found[table])) for table in sorted(found)}


def state_shard(
    member: str, dataset: str, tally: Tally, prepared: PreparedData, *, task: TaskChoice, files: Mapping[str, str]
) -> ShardStatement:
    """Return what a domain says of its shard.

    *Guarantee*: see :class:`fedpriv.study.shard.ShardStatement`.

    Parameters
    ----------
    member, dataset : str
        The domain's address, and its dataset.
    tally : Tally
        Of its record.
    prepared : PreparedData
        The examples of the task.
    task : TaskChoice
        The plan's.
    files : Mapping[str, str]
        The request's files.
    """
    kept = {table.name: table.kept for table in tally.tables}
    return ShardStatement(
        member=member,
        dataset=dataset,
        schema_sha256=schema_digest(),
        task_sha256=task_digest(task, files),
        tables={
            table.name: tuple(column.name for column in table.columns if 2 * column.filled >= table.kept > 0)
            for table in tally.tables
        },
        patients=coarse(kept.get("PATIENTS", 0)),
        admissions=coarse(kept.get("ADMISSIONS", 0)),
        examples=coarse(prepared.examples),
        heldout_examples=coarse(prepared.heldout_examples),
    )
