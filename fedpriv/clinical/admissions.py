"""Admissions as they stand in the tables, by patient and time, with no more of them than is asked for."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from fedpriv.clinical.lab_units import ANALYTE_OF
from fedpriv.clinical.rows import Rows

_Time = datetime.datetime
_Item = TypeVar("_Item")

_FRAME = """
SELECT a.subject_id, a.hadm_id, p.gender, p.dob, a.admittime, a.dischtime, a.admission_type, a.admission_location,
       a.discharge_location, a.diagnosis, a.hospital_expire_flag
FROM admissions a JOIN patients p USING (subject_id) ORDER BY a.subject_id, a.admittime, a.hadm_id
"""
_STAYS = """
SELECT subject_id, hadm_id, upper(trim(first_careunit)), intime, los FROM icustays
ORDER BY subject_id, hadm_id, intime, icustay_id
"""
_CODED = """
WITH named AS (
    SELECT icd9_code, min(coalesce(long_title, short_title)) AS title FROM d_icd_{kind} GROUP BY icd9_code)
SELECT subject_id, hadm_id, icd9_code, coalesce(title, 'ICD-9 code ' || icd9_code)
FROM {kind}_icd LEFT JOIN named USING (icd9_code) WHERE icd9_code IS NOT NULL
ORDER BY subject_id, hadm_id, seq_num NULLS LAST, icd9_code
"""
_DRUGS = """
SELECT subject_id, hadm_id, regexp_replace(trim(drug), '\\s+', ' ', 'g') AS name, min(startdate) AS since
FROM prescriptions GROUP BY ALL ORDER BY subject_id, hadm_id, since NULLS LAST, name
"""
_LABS = """
SELECT subject_id, hadm_id, itemid, charttime, valuenum, lower(trim(flag)) = 'abnormal' FROM labevents
WHERE charttime IS NOT NULL AND itemid IN (SELECT unnest($items::BIGINT[]))
QUALIFY row_number() OVER (PARTITION BY subject_id, hadm_id, itemid ORDER BY charttime, valuenum) = 1
ORDER BY subject_id, hadm_id
"""


@dataclass(frozen=True)
class Stay:
    """One stay in an intensive care unit; ``days`` is how long it was."""

    unit: str
    into: _Time | None
    days: float | None


@dataclass(frozen=True)
class Coded:
    """One ICD-9 code, with its title."""

    code: str
    title: str


@dataclass(frozen=True)
class Drug:
    """One drug, and when it was given first."""

    name: str
    since: _Time | None


@dataclass(frozen=True)
class Lab:
    """The first value of one analyte in an admission, in the unit of the record."""

    item: int
    taken: _Time
    value: float
    abnormal: bool | None


@dataclass(frozen=True)
class Admission:
    """One admission; what was not asked for is empty."""

    subject_id: int
    hadm_id: int
    gender: str | None
    dob: _Time
    admitted: _Time
    discharged: _Time | None
    kind: str | None
    came_from: str | None
    went_to: str | None
    problem: str | None
    expired: int | None
    stays: tuple[Stay, ...] = ()
    diagnoses: tuple[Coded, ...] = ()
    procedures: tuple[Coded, ...] = ()
    drugs: tuple[Drug, ...] = ()
    labs: tuple[Lab, ...] = ()

    @property
    def died(self) -> bool | None:
        """Whether the patient died in this stay; None if neither the flag nor where they went is recorded."""
        place = one_case(self.went_to)
        if self.expired == 1 or place == "DEAD/EXPIRED":
            return True
        return None if self.expired is None and not place else False


def patients(tables: Rows, fields: frozenset[str]) -> Iterator[list[Admission]]:
    """Give the admissions of each patient by time, patients ascending.

    Parameters
    ----------
    tables : Rows
        Of one part of the patients: their admissions are read at once.
    fields : frozenset of str
        Names of a template; only what they need is read.
    """
    stays = _lists(tables, _STAYS, Stay)
    wanted = {
        "diagnoses": _coded(tables, "diagnoses") if "diagnoses" in fields else {},
        "procedures": _coded(tables, "procedures") if "procedures" in fields else {},
        "drugs": _lists(tables, _DRUGS, Drug) if "drugs" in fields else {},
        "labs": _labs(tables) if "labs" in fields else {},
    }
    frames = tables.rows(_FRAME)
    for _, group in groupby(frames, key=lambda row: row[0]):
        yield [
            Admission(
                *row, stays=stays.get(row[:2], ()), **{name: found.get(row[:2], ()) for name, found in wanted.items()}
            )
            for row in group
        ]


def one_case(text: str | None) -> str:
    """Return a code of a table in capitals and with single spaces; empty if there is none."""
    return " ".join((text or "").upper().split())


def _coded(tables: Rows, kind: str) -> dict[tuple[int, int], tuple[Coded, ...]]:
    return _lists(tables, _CODED.format(kind=kind), Coded)


def _labs(tables: Rows) -> dict[tuple[int, int], tuple[Lab, ...]]:
    order = {item: place for place, item in enumerate(ANALYTE_OF)}
    found = _lists(tables, _LABS, Lab, {"items": list(ANALYTE_OF)})
    return {stay: tuple(sorted(labs, key=lambda lab: order[lab.item])) for stay, labs in found.items()}


def _lists(
    tables: Rows, sql: str, make: Callable[..., _Item], parameters: dict[str, Any] | None = None
) -> dict[tuple[int, int], tuple[_Item, ...]]:
    """Return the rows of a query by patient and admission, which are its first columns."""
    found: dict[tuple[int, int], list[_Item]] = {}
    for subject, hadm, *values in tables.rows(sql, parameters):
        found.setdefault((subject, hadm), []).append(make(*values))
    return {stay: tuple(items) for stay, items in found.items()}
