"""Synthetic tables in the schema of MIMIC-III v1.4, made of our own word lists; no private data is read.

Identifiers start at 900001, which MIMIC-III never uses, so that a made-up row can always be told from a real one.
"""

from __future__ import annotations

import contextlib
import datetime
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.clinical.lab_units import ANALYTES
from fedpriv.clinical.narrative import OLDEST_YEARS, full_years
from fedpriv.clinical.schema import RELEASE_COLUMNS
from fedpriv.clinical.staging import CsvGz, staged_folder
from fedpriv.clinical.synthetic_extras import LAB_CATEGORY, Course, laboratory, nursing_and_radiology, procedures
from fedpriv.clinical.synthetic_notes import NoteFacts, compose_note
from fedpriv.clinical.words import PROFILES, Diagnosis, Drug, UnitProfile
from fedpriv.clinical.words.charting import PROCEDURES
from fedpriv.clinical.words.common import COMMON_DIAGNOSES, COMMON_DRUGS, DEMOGRAPHICS, HOME_PLACES
from fedpriv.errors import DataError

FIRST_SUBJECT = 900_001
FIRST_ADMISSION = 9_100_001
FIRST_STAY = 9_200_001
MAX_PATIENTS = 50_000

_Time = datetime.datetime
_Days = datetime.timedelta


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is made.

    Attributes
    ----------
    patients : int
        How many patients.
    admissions : int, optional
        Exactly so many; by default about 15 of a hundred patients come again. At most two a patient.
    notes : int, optional
        Exactly so many, one of each admission's a discharge summary; by default three to six an admission.
    long_notes : bool
        Whether notes are as long as real ones, 2 KB on average, 10 KB for discharge summaries.
    compression : int
        gzip's level, 0 to 9.
    """

    patients: int = 240
    admissions: int | None = None
    notes: int | None = None
    long_notes: bool = False
    compression: int = 6


def full_size(share: float = 1.0) -> Size:
    """Return the size of MIMIC-III v1.4, or a share of it: 58,976 admissions and 2,083,180 notes of about 4 GB."""
    return Size(
        patients=max(1, round(46_520 * share)),
        admissions=max(1, round(58_976 * share)),
        notes=max(1, round(2_083_180 * share)),
        long_notes=True,
        compression=1,
    )


@dataclass
class _Made:
    """Writes rows as they are made, by table, each as column name to value."""

    draw: random.Random
    seed: int
    size: Size
    files: dict[str, CsvGz]
    count: Counter[str] = field(default_factory=Counter)

    def add(self, table: str, **values: object) -> None:
        self.count[table] += 1
        row = {"ROW_ID": self.count[table], **values}
        self.files[table].write([row.get(column) for column in RELEASE_COLUMNS[table]])

    def share(self, total: int, parts: int, place: int) -> int:
        """Return part ``place`` of ``total`` in ``parts`` that differ by one at most."""
        return total * (place + 1) // parts - total * place // parts


@dataclass(frozen=True)
class _Patient:
    subject: int
    gender: str
    born: _Time
    demographics: dict[str, object]


@dataclass(frozen=True)
class _Stay:
    """One admission's frame."""

    patient: _Patient
    hadm: int
    profile: UnitProfile
    admitted: _Time
    discharged: _Time
    died: bool


def write_synthetic(
    folder: Path,
    *,
    patients: int = 240,
    seed: int = 0,
    size: Size | None = None,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Write made-up MIMIC-III tables as ``NAME.csv.gz`` with all columns of the release.

    Guarantee: what is written depends on size and ``seed`` only, byte for byte. Rows are written as they are made, so
    that memory does not grow with the size.

    Parameters
    ----------
    folder : Path
        A new or empty folder.
    patients : int, default 240
        How many patients, 1 to 50000; about 32, 24, 20, 14 and 10 of a hundred start in MICU, SICU, CCU, CSRU, TSICU.
    seed : int, default 0
        Chooses the patients.
    size : Size, optional
        More about how much; in place of ``patients``.
    on_progress : Callable[[float], None]
        Called with the done fraction.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    DataError
        If ``patients`` is out of range or the folder cannot be written.
    """
    size = size or Size(patients=patients)
    if not 1 <= size.patients <= MAX_PATIENTS:
        raise DataError(f"{size.patients} synthetic patients cannot be made", todo=f"choose 1 to {MAX_PATIENTS}")
    if size.admissions is not None and not size.patients <= size.admissions <= 2 * size.patients:
        raise DataError(f"{size.patients} synthetic patients cannot have {size.admissions} admissions")
    if size.notes is not None and size.notes < (size.admissions or 2 * size.patients):
        raise DataError(f"{size.notes} notes are fewer than one an admission")
    with staged_folder(folder) as temporary, contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(CsvGz(temporary / f"{name}.csv.gz", columns, level=size.compression))
            for name, columns in RELEASE_COLUMNS.items()
        }
        for done in _make(_Made(random.Random(seed), seed, size, files)):
            on_progress(done)
        stack.close()


def _make(made: _Made) -> Iterator[float]:
    patients = made.size.patients
    first_profiles = _allot(patients)
    made.draw.shuffle(first_profiles)
    for place, profile in enumerate(first_profiles):
        _add_patient(made, place, profile)
        yield (place + 1) / patients
    known = {diagnosis.code: diagnosis for profile in PROFILES for diagnosis in profile.diagnoses}
    known.update({diagnosis.code: diagnosis for diagnosis in COMMON_DIAGNOSES})
    for code, diagnosis in sorted(known.items()):
        made.add("D_ICD_DIAGNOSES", ICD9_CODE=code, SHORT_TITLE=diagnosis.short, LONG_TITLE=diagnosis.long)
    for code, short, long in PROCEDURES:
        made.add("D_ICD_PROCEDURES", ICD9_CODE=code, SHORT_TITLE=short, LONG_TITLE=long)
    for analyte in ANALYTES:
        made.add("D_LABITEMS", ITEMID=analyte.item, LABEL=analyte.name, FLUID="Blood", CATEGORY=LAB_CATEGORY)


def _allot(patients: int) -> list[UnitProfile]:
    """Return one profile for each patient by the units' shares; what rounding leaves goes to the largest remainders."""
    counts = [patients * profile.share // 100 for profile in PROFILES]
    remainders = sorted(range(len(PROFILES)), key=lambda i: -(patients * PROFILES[i].share % 100))
    for i in remainders[: patients - sum(counts)]:
        counts[i] += 1
    return [profile for profile, count in zip(PROFILES, counts, strict=True) for _ in range(count)]


def _add_patient(made: _Made, place: int, profile: UnitProfile) -> None:
    draw, size, subject = made.draw, made.size, FIRST_SUBJECT + place
    admitted = _Time(2101, 1, 1) + _Days(days=draw.randrange(97 * 365), minutes=draw.randrange(1440))
    years = draw.randint(*profile.ages)
    shown = 300 if years > OLDEST_YEARS else years  # the release moves the birth of the oldest away
    born = _Time(admitted.year - shown, 1, 1) + _Days(days=draw.randrange(365))
    demographics: dict[str, object] = {name: draw.choice(values) for name, values in DEMOGRAPHICS.items()}
    patient = _Patient(subject, draw.choice("FM"), born, demographics)
    again = draw.random() < 0.15
    if size.admissions is not None:
        again = made.share(size.admissions - size.patients, size.patients, place) > 0
    died = _add_admission(made, patient, profile, admitted, may_die=not again)
    if again:
        later = admitted + _Days(days=_days_until_return(draw))
        died = _add_admission(made, patient, draw.choice(PROFILES), later, may_die=True)
    made.add(
        "PATIENTS",
        SUBJECT_ID=subject,
        GENDER=patient.gender,
        DOB=born,
        DOD=died and died.replace(hour=0, minute=0),
        DOD_HOSP=died and died.replace(hour=0, minute=0),
        EXPIRE_FLAG=int(died is not None),
    )


def _days_until_return(draw: random.Random) -> int:
    """Return days from one admission to the next: 23 to 400, after the longest stay; early returns are more frequent.

    About four of ten come back within 30 days of the discharge, so that about one stay in twenty is followed by a
    readmission, as in intensive care.
    """
    return 23 + int(377 * ((draw.randrange(40, 400) - 40) / 360) ** 3)


def _add_admission(
    made: _Made, patient: _Patient, profile: UnitProfile, admitted: _Time, *, may_die: bool
) -> _Time | None:
    """Add one admission with its stays, diagnoses, drugs and note; return the time of death, if it was the last."""
    draw = made.draw
    died = may_die and draw.random() < 0.12
    discharged = admitted + _Days(days=draw.randrange(4, 22), minutes=draw.randrange(1440))
    hadm = FIRST_ADMISSION + made.count["ADMISSIONS"]
    stay = _Stay(patient, hadm, profile, admitted, discharged, died)
    problem = draw.choice(profile.problems)
    drugs = (*draw.sample(profile.drugs, draw.randint(4, 7)), *draw.sample(COMMON_DRUGS, 2))
    _add_frame(made, stay, problem)
    _add_stays(made, stay)
    codes = (*draw.sample(profile.diagnoses, draw.randint(3, 6)), *draw.sample(COMMON_DIAGNOSES, 2))
    _add_codes(made, stay, codes)
    _add_drugs(made, stay, drugs)
    years = full_years(patient.born, admitted) or 0
    facts = NoteFacts(admitted, discharged, years, patient.gender, problem, drugs, died)
    made.add(
        "NOTEEVENTS",
        SUBJECT_ID=patient.subject,
        HADM_ID=hadm,
        CHARTDATE=discharged.date(),
        CATEGORY="Discharge summary",
        DESCRIPTION="Report",
        TEXT=compose_note(draw, profile, facts) + (_hospital_course(draw, profile) if made.size.long_notes else ""),
    )
    _add_extras(made, Course(patient.subject, hadm, profile, problem, admitted, discharged))
    return discharged if died else None


def _add_extras(made: _Made, course: Course) -> None:
    """Add what is charted during the stay, from a draw of its own."""
    draw, size = random.Random(f"{made.seed}/{course.hadm}"), made.size
    for row in procedures(draw, course):
        made.add("PROCEDURES_ICD", **row)
    for row in laboratory(draw, course):
        made.add("LABEVENTS", **row)
    count = draw.randint(2, 5)
    if size.notes is not None:
        admissions = size.admissions or made.count["ADMISSIONS"]
        count = made.share(size.notes - admissions, admissions, made.count["ADMISSIONS"] - 1)
    for row in nursing_and_radiology(draw, course, count, long=size.long_notes):
        made.add("NOTEEVENTS", **row)


def _hospital_course(draw: random.Random, profile: UnitProfile) -> str:
    """Return what makes a discharge summary as long as a real one."""
    told = draw.choices((*profile.courses, *profile.plans, *profile.exams), k=150)
    return "\n\nBrief Hospital Course:\n" + "\n".join(" ".join(told[start : start + 5]) for start in range(0, 150, 5))


def _add_frame(made: _Made, stay: _Stay, problem: str) -> None:
    draw, chance = made.draw, made.draw.randrange(100)
    kind = "EMERGENCY" if chance < stay.profile.emergency else draw.choice(("ELECTIVE", "ELECTIVE", "URGENT"))
    emergency = kind == "EMERGENCY"
    made.add(
        "ADMISSIONS",
        SUBJECT_ID=stay.patient.subject,
        HADM_ID=stay.hadm,
        ADMITTIME=stay.admitted,
        DISCHTIME=stay.discharged,
        DEATHTIME=stay.discharged if stay.died else None,
        ADMISSION_TYPE=kind,
        ADMISSION_LOCATION="EMERGENCY ROOM ADMIT" if emergency else "PHYS REFERRAL/NORMAL DELI",
        DISCHARGE_LOCATION="DEAD/EXPIRED" if stay.died else draw.choice(HOME_PLACES),
        EDREGTIME=stay.admitted - _Days(hours=5) if emergency else None,
        EDOUTTIME=stay.admitted + _Days(minutes=20) if emergency else None,
        DIAGNOSIS=problem.upper(),
        HOSPITAL_EXPIRE_FLAG=int(stay.died),
        HAS_CHARTEVENTS_DATA=1,
        **stay.patient.demographics,
    )


def _add_stays(made: _Made, stay: _Stay) -> None:
    """Add one ICU stay, now and then a second one in another unit."""
    draw = made.draw
    into = stay.admitted + _Days(minutes=draw.randrange(5, 300))
    units = [stay.profile]
    if draw.random() < 0.1:
        units.append(draw.choice(PROFILES))
    for profile in units:
        days = round(draw.uniform(0.4, 1.8), 4)
        out = into + _Days(seconds=int(days * 86400))
        made.add(
            "ICUSTAYS",
            SUBJECT_ID=stay.patient.subject,
            HADM_ID=stay.hadm,
            ICUSTAY_ID=FIRST_STAY + made.count["ICUSTAYS"],
            DBSOURCE=draw.choice(("carevue", "metavision")),
            FIRST_CAREUNIT=profile.unit,
            LAST_CAREUNIT=profile.unit,
            FIRST_WARDID=profile.ward,
            LAST_WARDID=profile.ward,
            INTIME=into,
            OUTTIME=out,
            LOS=days,
        )
        into = out + _Days(hours=6)


def _add_codes(made: _Made, stay: _Stay, codes: tuple[Diagnosis, ...]) -> None:
    for place, diagnosis in enumerate(codes, 1):
        made.add(
            "DIAGNOSES_ICD",
            SUBJECT_ID=stay.patient.subject,
            HADM_ID=stay.hadm,
            SEQ_NUM=place,
            ICD9_CODE=diagnosis.code,
        )


def _add_drugs(made: _Made, stay: _Stay, drugs: tuple[Drug, ...]) -> None:
    for place, drug in enumerate(drugs):
        start = (stay.admitted + _Days(days=place // 3)).replace(hour=0, minute=0)
        made.add(
            "PRESCRIPTIONS",
            SUBJECT_ID=stay.patient.subject,
            HADM_ID=stay.hadm,
            STARTDATE=start,
            ENDDATE=start + _Days(days=made.draw.randint(1, 4)),
            DRUG_TYPE="MAIN",
            DRUG=drug.name,
            DRUG_NAME_POE=drug.name,
            DRUG_NAME_GENERIC=drug.name,
            FORMULARY_DRUG_CD=drug.name.replace(" ", "").upper()[:5],
            DOSE_VAL_RX=drug.dose,
            DOSE_UNIT_RX=drug.unit,
            FORM_VAL_DISP=1,
            FORM_UNIT_DISP=drug.unit,
            ROUTE=drug.route,
        )
