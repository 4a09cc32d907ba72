"""MIMIC-III tables written in the schema of the example domain ``domains/ccu``: another hospital's export.

It is written by hand, not derived from that domain's ``mapping.yaml``, so that the one can be tested against the other.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpriv.clinical.staging import staged_folder, write_csv_gz
from fedpriv.clinical.tables import ClinicalTables

DELIMITER = ";"

_Row = dict[str, str]
"""A row of MIMIC-III: column in lower case to text, empty fields as ``""``."""

_SEX = {"F": "female", "M": "male"}
_URGENCY = {"ELECTIVE": "planned", "EMERGENCY": "emergency", "NEWBORN": "birth", "URGENT": "urgent"}
_CAME_FROM = {
    "CLINIC REFERRAL/PREMATURE": "clinic",
    "EMERGENCY ROOM ADMIT": "emergency room",
    "PHYS REFERRAL/NORMAL DELI": "own doctor",
    "TRANSFER FROM HOSP/EXTRAM": "other hospital",
    "TRANSFER FROM SKILLED NUR": "nursing home",
}
_WENT_TO = {
    "DEAD/EXPIRED": "died",
    "HOME": "home",
    "HOME HEALTH CARE": "home, nurse visits",
    "REHAB/DISTINCT PART HOSP": "rehabilitation",
    "SNF": "nursing home",
}
_UNIT = {
    "CCU": "coronary care",
    "CSRU": "heart surgery",
    "MICU": "medical",
    "NICU": "newborn",
    "SICU": "surgical",
    "TSICU": "trauma",
}
_LETTER = {"Report": "letter", "Addendum": "supplement"}


_TESTS = {
    "50912": "CREA",
    "51006": "UREA",
    "50983": "NA",
    "50971": "K",
    "50931": "GLU",
    "50813": "LAC",
    "51222": "HB",
    "51301": "LEU",
    "51265": "THR",
    "50820": "PH",
}
"""The tests that the ccu's laboratory has, by ITEMID."""

_THEIR_UNIT = {
    "50912": ("umol/l", 1 / 0.011312),
    "51006": ("mmol/l", 1 / 2.801),
    "50983": ("mmol/l", 1.0),
    "50971": ("mmol/l", 1.0),
    "50931": ("mmol/l", 1 / 18.016),
    "51222": ("g/l", 10.0),
    "51301": ("10^9/l", 1.0),
    "51265": ("10^9/l", 1.0),
}


@dataclass(frozen=True)
class _Table:
    """One file of the ccu: its name, and each column with what it holds of a row of ``source``."""

    source: str
    file: str
    columns: dict[str, Callable[[_Row], str]]
    only: Callable[[_Row], bool] = lambda _row: True


def write_in_ccu_schema(tables: ClinicalTables, folder: Path) -> None:
    """Write tables again as the ccu's own systems would export them.

    Other files and columns, semicolons, days as ``31.12.2150`` in one system and ``12/31/2150 11:59:00 PM`` in
    another, ICD-9 codes with dots in lower case, words of its own for sex, urgency, places and units.

    Parameters
    ----------
    tables : ClinicalTables
        Open tables; of prescriptions the main drugs are written, of notes the discharge summaries.
    folder : Path
        A new or empty folder; the files are csv.gz, the same bytes every time.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    DataError
        If a table cannot be read or written.
    """
    with staged_folder(folder) as temporary:
        for table in _TABLES:
            rows = ([tell(row) for tell in table.columns.values()] for row in _rows(tables, table))
            write_csv_gz(temporary / f"{table.file}.csv.gz", [*table.columns], rows, delimiter=DELIMITER)


def _rows(tables: ClinicalTables, table: _Table) -> Iterator[_Row]:
    if not tables.has(table.source):
        return  # the mapping names every file, so that it is there, with a header only
    names = [name.lower() for name in tables.source_columns(table.source)]
    for values in tables.raw_rows(table.source):
        row = {name: value or "" for name, value in zip(names, values, strict=True)}
        if table.only(row):
            yield row


def dotted(code: str, whole: int = 3) -> str:
    """Return an ICD-9 code as the ccu writes it: ``41011`` as ``410.11``, ``E8809`` as ``e880.9``.

    Procedures have two digits before the dot: ``3893`` is ``38.93``.
    """
    whole += code.startswith("E")
    return (code[:whole] + ("." + code[whole:] if code[whole:] else "")).lower()


def _as_is(name: str) -> Callable[[_Row], str]:
    return lambda row: row[name]


def _time(name: str, form: str) -> Callable[[_Row], str]:
    def tell(row: _Row) -> str:
        text = row[name]
        return datetime.datetime.fromisoformat(text).strftime(form) if text else ""

    return tell


def _word(name: str, words: dict[str, str]) -> Callable[[_Row], str]:
    return lambda row: words.get(row[name].strip(), row[name])


def _in_their_unit(row: _Row) -> tuple[str, str]:
    """Return a result and its unit as a laboratory in Europe tells them: amounts of substance, not masses."""
    unit, factor = _THEIR_UNIT.get(row["itemid"], (row["valueuom"], 1.0))
    return f"{float(row['valuenum']) * factor:.10g}", unit


_DAY, _SECONDS, _TWELVE_HOURS = "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"
_TABLES = (
    _Table(
        "PATIENTS",
        "persons",
        {"Person No": _as_is("subject_id"), "Sex": _word("gender", _SEX), "Born": _time("dob", _DAY)},
    ),
    _Table(
        "ADMISSIONS",
        "visits",
        {
            "Visit No": _as_is("hadm_id"),
            "Person No": _as_is("subject_id"),
            "Arrival": _time("admittime", _SECONDS),
            "Departure": _time("dischtime", _SECONDS),
            "Urgency": _word("admission_type", _URGENCY),
            "Came From": _word("admission_location", _CAME_FROM),
            "Went To": _word("discharge_location", _WENT_TO),
            "Reason": _as_is("diagnosis"),
            "Died": _word("hospital_expire_flag", {"1": "yes", "0": "no"}),
        },
    ),
    _Table(
        "ICUSTAYS",
        "unit_stays",
        {
            "stay": _as_is("icustay_id"),
            "visit": _as_is("hadm_id"),
            "person": _as_is("subject_id"),
            "unit": _word("first_careunit", _UNIT),
            "entered": _time("intime", _TWELVE_HOURS),
            "days": _as_is("los"),
        },
    ),
    _Table(
        "DIAGNOSES_ICD",
        "codes",
        {
            "Person No": _as_is("subject_id"),
            "Visit No": _as_is("hadm_id"),
            "Rank": _as_is("seq_num"),
            "Code": lambda row: dotted(row["icd9_code"]),
        },
    ),
    _Table(
        "D_ICD_DIAGNOSES",
        "code_names",
        {"Code": lambda row: dotted(row["icd9_code"]), "Name": lambda row: row["long_title"] or row["short_title"]},
    ),
    _Table(
        "PROCEDURES_ICD",
        "procedures",
        {
            "Person No": _as_is("subject_id"),
            "Visit No": _as_is("hadm_id"),
            "Rank": _as_is("seq_num"),
            "Code": lambda row: dotted(row["icd9_code"], whole=2),
        },
    ),
    _Table(
        "D_ICD_PROCEDURES",
        "procedure_names",
        {
            "Code": lambda row: dotted(row["icd9_code"], whole=2),
            "Name": lambda row: row["long_title"] or row["short_title"],
        },
    ),
    _Table(
        "LABEVENTS",
        "samples",
        {
            "person": _as_is("subject_id"),
            "visit": _as_is("hadm_id"),
            "test": lambda row: _TESTS[row["itemid"]],
            "taken": _time("charttime", "%d.%m.%Y %H:%M"),
            "result": lambda row: _in_their_unit(row)[0],
            "unit": lambda row: _in_their_unit(row)[1],
            "mark": _word("flag", {"abnormal": "!"}),
        },
        only=lambda row: row["itemid"] in _TESTS and bool(row["valuenum"]),
    ),
    _Table(
        "D_LABITEMS",
        "tests",
        {"test": lambda row: _TESTS[row["itemid"]], "name": _as_is("label"), "material": _as_is("fluid")},
        only=lambda row: row["itemid"] in _TESTS,
    ),
    _Table(
        "PRESCRIPTIONS",
        "orders",
        {
            "person": _as_is("subject_id"),
            "visit": _as_is("hadm_id"),
            "medicine": _as_is("drug"),
            "first day": _time("startdate", _DAY),
        },
        only=lambda row: bool(row["drug"]) and row["drug_type"].strip().upper() in ("", "MAIN"),
    ),
    _Table(
        "NOTEEVENTS",
        "letters",
        {
            "person": _as_is("subject_id"),
            "visit": _as_is("hadm_id"),
            "dated": _time("chartdate", _DAY),
            "kind": _word("description", _LETTER),
            "body": _as_is("text"),
        },
        only=lambda row: row["category"].strip().lower() == "discharge summary" and row["iserror"].strip() != "1",
    ),
)
