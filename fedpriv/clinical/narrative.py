"""Narratives: one text for an admission, from its discharge summary or, without one, from the structured tables."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fedpriv.clinical.record import RecordTables

MAX_DIAGNOSES = 12
MAX_DRUGS = 15
OLDEST_YEARS = 89
"""MIMIC-III moves the birth of older patients about 300 years back; their age is not told."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Narrative:
    """One admission as text.

    Attributes
    ----------
    subject_id : int
        The patient; it never stands in the text.
    text : str
        What a model is trained on.
    source : {"note", "tables"}
        Whether it is the discharge summary, or told from the structured tables.
    """

    subject_id: int
    text: str
    source: Literal["note", "tables"]


@dataclass(frozen=True)
class _Admission:
    """One row of the query below."""

    subject_id: int
    gender: str | None
    dob: datetime.datetime
    admittime: datetime.datetime
    dischtime: datetime.datetime | None
    admission_type: str | None
    admission_location: str | None
    discharge_location: str | None
    diagnosis: str | None
    expired: int | None
    units: list[str]
    days: list[float | None]
    titles: list[str]
    drugs: list[str]
    note: str | None


_QUERY = """
WITH stays AS (
    SELECT subject_id, hadm_id, list(upper(trim(first_careunit)) ORDER BY intime, icustay_id) AS units,
           list(los ORDER BY intime, icustay_id) AS days
    FROM icustays GROUP BY ALL),
named AS (
    SELECT icd9_code, min(coalesce(long_title, short_title)) AS title FROM d_icd_diagnoses GROUP BY icd9_code),
coded AS (
    SELECT subject_id, hadm_id, list(coalesce(title, 'ICD-9 code ' || icd9_code) ORDER BY seq_num NULLS LAST, icd9_code)
           AS titles
    FROM diagnoses_icd LEFT JOIN named USING (icd9_code) WHERE icd9_code IS NOT NULL GROUP BY ALL),
given AS (
    SELECT subject_id, hadm_id, min(startdate) AS since, regexp_replace(trim(drug), '\\s+', ' ', 'g') AS name
    FROM prescriptions GROUP BY ALL),
drugged AS (
    SELECT subject_id, hadm_id, list(name ORDER BY since NULLS LAST, name) AS drugs FROM given GROUP BY ALL),
noted AS (
    SELECT subject_id, hadm_id, text FROM noteevents
    WHERE hadm_id IS NOT NULL AND lower(trim(category)) = 'discharge summary'
    QUALIFY row_number() OVER (PARTITION BY subject_id, hadm_id
        ORDER BY (lower(trim(description)) = 'report') DESC NULLS LAST, chartdate DESC NULLS LAST, text) = 1)
SELECT a.subject_id, p.gender, p.dob, a.admittime, a.dischtime, a.admission_type, a.admission_location,
       a.discharge_location, a.diagnosis, a.hospital_expire_flag, coalesce(s.units, []), coalesce(s.days, []),
       coalesce(c.titles, []), coalesce(d.drugs, []), n.text
FROM admissions a JOIN patients p USING (subject_id)
LEFT JOIN stays s ON s.subject_id = a.subject_id AND s.hadm_id = a.hadm_id
LEFT JOIN coded c ON c.subject_id = a.subject_id AND c.hadm_id = a.hadm_id
LEFT JOIN drugged d ON d.subject_id = a.subject_id AND d.hadm_id = a.hadm_id
LEFT JOIN noted n ON n.subject_id = a.subject_id AND n.hadm_id = a.hadm_id
ORDER BY a.subject_id, a.admittime, a.hadm_id
"""

_UNITS = {
    "CCU": "coronary care unit",
    "CSRU": "cardiac surgery recovery unit",
    "MICU": "medical intensive care unit",
    "NICU": "neonatal intensive care unit",
    "SICU": "surgical intensive care unit",
    "TSICU": "trauma/surgical intensive care unit",
}
_TYPES = {
    "ELECTIVE": "electively",
    "EMERGENCY": "as an emergency",
    "NEWBORN": "as a newborn",
    "URGENT": "urgently",
}
_FROM = {
    "CLINIC REFERRAL/PREMATURE": "on referral from a clinic",
    "EMERGENCY ROOM ADMIT": "from the emergency room",
    "PHYS REFERRAL/NORMAL DELI": "on referral from a physician",
    "TRANSFER FROM HOSP/EXTRAM": "from another hospital",
    "TRANSFER FROM SKILLED NUR": "from a skilled nursing facility",
}
_TO = {
    "HOME": "home",
    "HOME HEALTH CARE": "home with health care",
    "HOME WITH HOME IV PROVIDR": "home with intravenous therapy",
    "HOSPICE-HOME": "home with hospice care",
    "HOSPICE-MEDICAL FACILITY": "to a hospice",
    "ICF": "to an intermediate care facility",
    "LEFT AGAINST MEDICAL ADVI": "against medical advice",
    "LONG TERM CARE HOSPITAL": "to a long-term care hospital",
    "REHAB/DISTINCT PART HOSP": "to rehabilitation",
    "SNF": "to a skilled nursing facility",
}


def narratives(tables: RecordTables) -> Iterator[Narrative]:
    """Tell every admission, by patient and time; the same tables give the same texts.

    Parameters
    ----------
    tables : RecordTables
        Open tables; titles, drugs and notes are used where they are there.

    Yields
    ------
    Narrative
        One for each admission: the discharge summary (the latest report) under a line of context or, where there is
        none, sentences made of the structured tables.

    Raises
    ------
    DataError
        If the tables of titles, prescriptions or notes are damaged.
    """
    for row in tables.stream(_QUERY):
        admission = _Admission(*row)
        note = clean_note(admission.note or "")
        if note:
            yield Narrative(admission.subject_id, f"{_context(admission)}\n{note}", "note")
        else:
            yield Narrative(admission.subject_id, _tell(admission), "tables")


def clean_note(text: str) -> str:
    """Return a note with one space between words and one line for a paragraph; ``[**marks**]`` stay as they are."""
    visible = _CONTROL.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n[ \t]*\n", visible))
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _context(admission: _Admission) -> str:
    years = full_years(admission.dob, admission.admittime)
    kind = (admission.admission_type or "").strip().lower()
    parts = [
        {"F": "female", "M": "male"}.get(_upper(admission.gender), "patient"),
        _age_band(years),
        admission.units[0] if admission.units else "",
        f"{kind} admission" if kind else "",
    ]
    line = ", ".join(part for part in parts if part)
    return f"{line[0].upper()}{line[1:]}."


def _tell(admission: _Admission) -> str:
    sentences = [_admitted(admission), _problem(admission), _icu(admission)]
    titles = _distinct(admission.titles)[:MAX_DIAGNOSES]
    if titles:
        sentences.append(f"Diagnoses: {'; '.join(titles)}.")
    drugs = _distinct(admission.drugs)[:MAX_DRUGS]
    if drugs:
        sentences.append(f"Medications: {', '.join(drugs)}.")
    sentences.append(_outcome(admission))
    return " ".join(sentence for sentence in sentences if sentence)


def _admitted(admission: _Admission) -> str:
    kind, source = _upper(admission.admission_type), _upper(admission.admission_location)
    words = [_person(admission), "was admitted", _TYPES.get(kind, ""), _FROM.get(source, "")]
    return " ".join(word for word in words if word) + "."


def _person(admission: _Admission) -> str:
    years, gender = full_years(admission.dob, admission.admittime), _upper(admission.gender)
    if years is not None and years < 1:
        return {"F": "A newborn girl", "M": "A newborn boy"}.get(gender, "A newborn")
    young = years is not None and years < 18
    nouns = {"F": "girl", "M": "boy"} if young else {"F": "woman", "M": "man"}
    noun = nouns.get(gender, "patient")
    if years is None:
        return f"A {noun} of unknown age"
    if years > OLDEST_YEARS:
        return f"A {noun} over {OLDEST_YEARS}"
    article = "An" if years in (8, 11, 18) or 80 <= years <= 89 else "A"
    return f"{article} {years}-year-old {noun}"


def _problem(admission: _Admission) -> str:
    words = [part.strip().lower() for part in re.split(r"[\\;]", " ".join((admission.diagnosis or "").split()))]
    told = ", ".join(word for word in words if word)
    return f"Problem on admission: {told}." if told else ""


def _icu(admission: _Admission) -> str:
    told = []
    for unit, days in zip(admission.units, admission.days, strict=True):
        name = f"the {_UNITS[unit]} ({unit})" if unit in _UNITS else unit
        told.append(f"{name} for {_days(days)}" if days is not None and days >= 0 else name)
    return f"Intensive care: {', then '.join(told)}." if told else ""


def _outcome(admission: _Admission) -> str:
    place = _upper(admission.discharge_location)
    pronoun = {"F": "She", "M": "He"}.get(_upper(admission.gender), "The patient")
    stay = ""
    if admission.dischtime is not None and admission.dischtime >= admission.admittime:
        days = (admission.dischtime - admission.admittime).total_seconds() / 86400
        stay = f" after {_days(days)}"
    if admission.expired == 1 or place == "DEAD/EXPIRED":
        return f"{pronoun} died in hospital{stay}."
    where = f" {_TO.get(place, 'to ' + place.lower())}" if place else ""
    return f"{pronoun} was discharged{where}{stay}."


def full_years(born: datetime.datetime, now: datetime.datetime) -> int | None:
    """Return the age in full years; None if the birth is after ``now``."""
    years = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    return years if years >= 0 else None


def _age_band(years: int | None) -> str:
    if years is None:
        return "of unknown age"
    if years < 1:
        return "newborn"
    if years < 18:
        return "under 18"
    if years > OLDEST_YEARS:
        return f"over {OLDEST_YEARS}"
    low = max(18, years // 10 * 10)
    return f"{low} to {years // 10 * 10 + 9} years"


def _days(days: float) -> str:
    return "less than a day" if days < 0.95 else f"{days:.1f} days"


def _distinct(names: list[str]) -> list[str]:
    """Return the names without repeats (whatever their case), first ones kept, with single spaces."""
    kept: dict[str, str] = {}
    for name in (" ".join(name.split()) for name in names):
        if name:
            kept.setdefault(name.casefold(), name)
    return list(kept.values())


def _upper(text: str | None) -> str:
    return " ".join((text or "").upper().split())
