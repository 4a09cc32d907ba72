"""Narratives: the fields that templates name, computed from one admission, up to the moment that a task allows."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence

from fedpriv.clinical.admissions import Admission, Drug, Lab, Stay, one_case
from fedpriv.clinical.lab_units import ANALYTE_OF
from fedpriv.clinical.notes import known_after

MAX_DIAGNOSES = 12
MAX_PROCEDURES = 12
MAX_DRUGS = 15
OLDEST_YEARS = 89
"""MIMIC-III moves the birth of older patients about 300 years back; their age is not told."""

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

_Time = datetime.datetime


def fields_of(
    admission: Admission, others: Sequence[Admission], *, until: _Time | None = None, window_hours: int | None = None
) -> dict[str, str]:
    """Return every field of one admission but the notes; an empty text is a field with nothing to tell.

    Parameters
    ----------
    admission : Admission
        The one that is told.
    others : sequence of Admission
        All of the same patient, by time.
    until : datetime.datetime, optional
        Care units, drugs and laboratory values that can only have been known after it are left out, and how long a stay
        in a unit was. What has a day and no hour is known when the day is over. Without it, the whole stay is told.
    window_hours : int, optional
        Hours of the task's window.
    """
    units = [stay for stay in admission.stays if until is None or (stay.into is not None and stay.into <= until)]
    return {
        "person": _person(admission),
        "they": {"F": "She", "M": "He"}.get(one_case(admission.gender), "The patient"),
        "sex": {"F": "female", "M": "male"}.get(one_case(admission.gender), "patient"),
        "age_band": _age_band(full_years(admission.dob, admission.admitted)),
        "admission_type": _TYPES.get(one_case(admission.kind), ""),
        "came_from": _FROM.get(one_case(admission.came_from), ""),
        "problem": _problem(admission),
        "previous_admissions": _previous(admission, others),
        "window": f"{window_hours} hours" if window_hours else "",
        "context": _context(admission, units),
        "intensive_care": _intensive_care(units, with_days=until is None),
        "drugs": ", ".join(_distinct(drug.name for drug in admission.drugs if _begun(drug, until))[:MAX_DRUGS]),
        "labs": "; ".join(_lab(lab) for lab in admission.labs if until is None or lab.taken <= until),
        "diagnoses": "; ".join(_distinct(coded.title for coded in admission.diagnoses)[:MAX_DIAGNOSES]),
        "procedures": "; ".join(_distinct(coded.title for coded in admission.procedures)[:MAX_PROCEDURES]),
        "outcome": _outcome(admission),
        "next_admission": _next(admission, others),
    }


def full_years(born: _Time, now: _Time) -> int | None:
    """Return the age in full years; None if the birth is after ``now``."""
    years = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    return years if years >= 0 else None


def _context(admission: Admission, units: list[Stay]) -> str:
    kind = (admission.kind or "").strip().lower()
    parts = [
        {"F": "female", "M": "male"}.get(one_case(admission.gender), "patient"),
        _age_band(full_years(admission.dob, admission.admitted)),
        units[0].unit if units else "",
        f"{kind} admission" if kind else "",
    ]
    line = ", ".join(part for part in parts if part)
    return f"{line[0].upper()}{line[1:]}"


def _person(admission: Admission) -> str:
    years, gender = full_years(admission.dob, admission.admitted), one_case(admission.gender)
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


def _problem(admission: Admission) -> str:
    words = [part.strip().lower() for part in re.split(r"[\\;]", " ".join((admission.problem or "").split()))]
    return ", ".join(word for word in words if word)


def _previous(admission: Admission, others: Sequence[Admission]) -> str:
    before = [other for other in others if other.admitted < admission.admitted]
    if not before:
        return ""
    now = admission.admitted
    over = [other.discharged for other in before if other.discharged is not None and other.discharged <= now]
    days = (now - max((*over, *(other.admitted for other in before)))).days  # nothing of what is not over yet
    ago = f", the last {days} days ago" if days > 0 else ""
    return f"{len(before)}{ago}"


def _next(admission: Admission, others: Sequence[Admission]) -> str:
    left = admission.discharged
    after = [other.admitted for other in others if left is not None and other.admitted >= left and other != admission]
    return f"{(min(after) - left).days} days after the discharge" if after and left is not None else ""


def _intensive_care(units: list[Stay], *, with_days: bool) -> str:
    told = []
    for stay in units:
        name = f"the {_UNITS[stay.unit]} ({stay.unit})" if stay.unit in _UNITS else stay.unit
        timed = with_days and stay.days is not None and stay.days >= 0
        told.append(f"{name} for {_days(stay.days)}" if timed and stay.days is not None else name)
    return ", then ".join(told)


def _begun(drug: Drug, until: _Time | None) -> bool:
    if until is None:
        return True
    if drug.since is None:
        return False
    has_hour = drug.since.time() != datetime.time()
    return (drug.since if has_hour else known_after(drug.since)) <= until


def _lab(lab: Lab) -> str:
    analyte = ANALYTE_OF[lab.item]
    flag = " (abnormal)" if lab.abnormal else ""
    return " ".join(filter(None, [analyte.name, f"{lab.value:.4g}", analyte.unit])) + flag


def _outcome(admission: Admission) -> str:
    place = one_case(admission.went_to)
    pronoun = {"F": "She", "M": "He"}.get(one_case(admission.gender), "The patient")
    stay = ""
    if admission.discharged is not None and admission.discharged >= admission.admitted:
        days = (admission.discharged - admission.admitted).total_seconds() / 86400
        stay = f" after {_days(days)}"
    if admission.died:
        return f"{pronoun} died in hospital{stay}"
    where = f" {_TO.get(place, 'to ' + place.lower())}" if place else ""
    return f"{pronoun} was discharged{where}{stay}"


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


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the names without repeats (whatever their case), first ones kept, with single spaces."""
    kept: dict[str, str] = {}
    for name in (" ".join(name.split()) for name in names):
        if name:
            kept.setdefault(name.casefold(), name)
    return list(kept.values())
