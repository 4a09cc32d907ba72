"""What a made-up admission has beside its frame: procedures, laboratory values, radiology reports and nursing notes."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from dataclasses import dataclass

from fedpriv.clinical.lab_units import ANALYTES, Analyte
from fedpriv.clinical.words import UnitProfile
from fedpriv.clinical.words.charting import FINDINGS, IMPRESSIONS, PROCEDURES, SHIFTS, STUDIES, VIEWS

LAB_CATEGORY = "Chemistry"
_Row = dict[str, object]
_MINUTE = datetime.timedelta(minutes=1)
_SHORT, _LONG = (3, 6), (16, 34)
"""Sentences of a note: as many as a person reads through, and as many as notes of a real intensive care unit have."""


@dataclass(frozen=True)
class Course:
    """An admission, as far as what is charted during it needs to know.

    Attributes
    ----------
    subject, hadm : int
        Whose it is.
    profile : UnitProfile
        Of the care unit.
    problem : str
        Why the patient came.
    admitted, discharged : datetime.datetime
        Between these everything is charted.
    """

    subject: int
    hadm: int
    profile: UnitProfile
    problem: str
    admitted: datetime.datetime
    discharged: datetime.datetime

    @property
    def key(self) -> _Row:
        """The columns that say whose a row is."""
        return {"SUBJECT_ID": self.subject, "HADM_ID": self.hadm}

    def moment(self, draw: random.Random, first_hours: float | None = None) -> datetime.datetime:
        """Return a moment of the stay, of its first hours if so asked, to the minute."""
        stay = (self.discharged - self.admitted) // _MINUTE
        within = stay if first_hours is None else min(stay, int(first_hours * 60))
        return self.admitted + draw.randrange(max(1, within)) * _MINUTE


def procedures(draw: random.Random, course: Course) -> Iterator[_Row]:
    """Give one to three coded procedures."""
    for place, (code, _short, _long) in enumerate(draw.sample(PROCEDURES, draw.randint(1, 3)), 1):
        yield {**course.key, "SEQ_NUM": place, "ICD9_CODE": code}


def laboratory(draw: random.Random, course: Course) -> Iterator[_Row]:
    """Give some values of the first day and of a later one, a tenth of them outside of what is usual."""
    for analyte in draw.sample(ANALYTES, 12):
        yield _lab(draw, course, analyte, course.moment(draw, 24))
        if draw.random() < 0.5:
            yield _lab(draw, course, analyte, course.moment(draw))


def _lab(draw: random.Random, course: Course, analyte: Analyte, when: datetime.datetime) -> _Row:
    low, high = analyte.usual
    skew = draw.random() ** 2 if high > 6 * low else draw.random()  # enzymes are mostly low and now and then very high
    abnormal = draw.random() < 0.1
    value = round((low + skew * (high - low)) * (1.3 if abnormal else 1.0), 2 if high < 10 else 1 if high < 60 else 0)
    told = f"{value:g}"
    return {
        **course.key,
        "ITEMID": analyte.item,
        "CHARTTIME": when,
        "VALUE": told,
        "VALUENUM": told,
        "VALUEUOM": analyte.unit or None,
        "FLAG": "abnormal" if abnormal else None,
    }


def nursing_and_radiology(draw: random.Random, course: Course, count: int, *, long: bool = False) -> Iterator[_Row]:
    """Give ``count`` notes of the stay by time: about a quarter radiology reports, the rest nursing notes."""
    times = sorted(course.moment(draw) for _ in range(count))
    for when in times:
        make = _radiology if draw.random() < 0.25 else _nursing
        yield {**course.key, "CHARTDATE": when.date(), "CHARTTIME": when, **make(draw, course, when, long=long)}


def _nursing(draw: random.Random, course: Course, when: datetime.datetime, *, long: bool) -> _Row:
    told = draw.choices(SHIFTS, k=draw.randint(*(_LONG if long else _SHORT)))
    vital = (
        f"HR {draw.randint(52, 128)} BP {draw.randint(88, 168)}/{draw.randint(42, 94)} SpO2 {draw.randint(89, 100)}%"
    )
    text = f"NPN {when:%H}00 shift.\nNeuro/CV: {vital}.\n" + "\n".join(told)
    if draw.random() < 0.3:
        text += f'\nPt states "{draw.choice(course.profile.complaints)}". RN [**Last Name (un) {draw.randrange(900)}**]'
    kind = "Nursing/other" if draw.random() < 0.7 else "Nursing"
    return {
        "STORETIME": when,
        "CATEGORY": kind,
        "DESCRIPTION": "Report",
        "CGID": draw.randrange(14000, 21000),
        "TEXT": text,
    }


def _radiology(draw: random.Random, course: Course, when: datetime.datetime, *, long: bool) -> _Row:
    study, findings = draw.choice(STUDIES), draw.choices(FINDINGS, k=draw.randint(*(_LONG if long else _SHORT)))
    text = (
        f"[**{when:%Y-%m-%d}**] {when:%I:%M %p}\n"
        f" {study}{' ' * 30}Clip # [**Clip Number (Radiology) {draw.randrange(99)}**]\n"
        f" Reason: {course.problem}\n {'_' * 78}\n"
        f" UNDERLYING MEDICAL CONDITION:\n  Patient with {course.problem}\n REASON FOR THIS EXAMINATION:\n"
        f"  {draw.choice(VIEWS)}\n {'_' * 78}\n{' ' * 33}FINAL REPORT\n"
        f" INDICATION:  {course.problem}.\n\n FINDINGS:  " + "\n ".join(findings) + "\n\n"
        f" IMPRESSION:  {draw.choice(IMPRESSIONS)}\n"
    )
    return {"CATEGORY": "Radiology", "DESCRIPTION": study, "TEXT": text}
