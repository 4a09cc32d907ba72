"""Synthetic tables in the schema of MIMIC-III v1.4, made of our own word lists; no private data is read.

Identifiers start at 900001, which MIMIC-III never uses, so that a made-up row can always be told from a real one.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.clinical.narrative import OLDEST_YEARS, full_years
from fedpriv.clinical.schema import RELEASE_COLUMNS
from fedpriv.clinical.staging import staged_folder, write_csv_gz
from fedpriv.clinical.synthetic_notes import NoteFacts, compose_note
from fedpriv.clinical.words import PROFILES, Diagnosis, Drug, UnitProfile
from fedpriv.clinical.words.common import COMMON_DIAGNOSES, COMMON_DRUGS, DEMOGRAPHICS, HOME_PLACES
from fedpriv.errors import DataError

FIRST_SUBJECT = 900_001
FIRST_ADMISSION = 9_100_001
FIRST_STAY = 9_200_001
MAX_PATIENTS = 50_000

_Time = datetime.datetime
_Days = datetime.timedelta


@dataclass
class _Made:
    """The rows made so far, by table, each as column name to value."""

    draw: random.Random
    rows: dict[str, list[dict[str, object]]] = field(default_factory=lambda: {name: [] for name in RELEASE_COLUMNS})

    def add(self, table: str, **values: object) -> None:
        rows = self.rows[table]
        rows.append({"ROW_ID": len(rows) + 1, **values})


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


def write_synthetic(folder: Path, *, patients: int = 240, seed: int = 0) -> None:
    """Write made-up MIMIC-III tables as ``NAME.csv.gz`` with all columns of the release.

    Guarantee: what is written depends on ``patients`` and ``seed`` only, byte for byte.

    Parameters
    ----------
    folder : Path
        A new or empty folder.
    patients : int, default 240
        How many patients, 1 to 50000; about 32, 24, 20, 14 and 10 of a hundred start in MICU, SICU, CCU, CSRU, TSICU.
    seed : int, default 0
        Chooses the patients.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    DataError
        If ``patients`` is out of range or the folder cannot be written.
    """
    if not 1 <= patients <= MAX_PATIENTS:
        raise DataError(f"{patients} synthetic patients cannot be made", todo=f"choose 1 to {MAX_PATIENTS}")
    with staged_folder(folder) as temporary:
        made = _make(patients, seed)
        for name, columns in RELEASE_COLUMNS.items():
            rows = ([row.get(column) for column in columns] for row in made.rows[name])
            write_csv_gz(temporary / f"{name}.csv.gz", columns, rows)


def _make(patients: int, seed: int) -> _Made:
    made = _Made(random.Random(seed))
    first_profiles = _allot(patients)
    made.draw.shuffle(first_profiles)
    for place, profile in enumerate(first_profiles):
        _add_patient(made, FIRST_SUBJECT + place, profile)
    known = {diagnosis.code: diagnosis for profile in PROFILES for diagnosis in profile.diagnoses}
    known.update({diagnosis.code: diagnosis for diagnosis in COMMON_DIAGNOSES})
    for code, diagnosis in sorted(known.items()):
        made.add("D_ICD_DIAGNOSES", ICD9_CODE=code, SHORT_TITLE=diagnosis.short, LONG_TITLE=diagnosis.long)
    return made


def _allot(patients: int) -> list[UnitProfile]:
    """Return one profile for each patient by the units' shares; what rounding leaves goes to the largest remainders."""
    counts = [patients * profile.share // 100 for profile in PROFILES]
    remainders = sorted(range(len(PROFILES)), key=lambda i: -(patients * PROFILES[i].share % 100))
    for i in remainders[: patients - sum(counts)]:
        counts[i] += 1
    return [profile for profile, count in zip(PROFILES, counts, strict=True) for _ in range(count)]


def _add_patient(made: _Made, subject: int, profile: UnitProfile) -> None:
    draw = made.draw
    admitted = _Time(2101, 1, 1) + _Days(days=draw.randrange(97 * 365), minutes=draw.randrange(1440))
    years = draw.randint(*profile.ages)
    shown = 300 if years > OLDEST_YEARS else years  # the release moves the birth of the oldest away
    born = _Time(admitted.year - shown, 1, 1) + _Days(days=draw.randrange(365))
    demographics: dict[str, object] = {name: draw.choice(values) for name, values in DEMOGRAPHICS.items()}
    patient = _Patient(subject, draw.choice("FM"), born, demographics)
    again = draw.random() < 0.15
    died = _add_admission(made, patient, profile, admitted, may_die=not again)
    if again:
        later = admitted + _Days(days=draw.randrange(40, 400))
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


def _add_admission(
    made: _Made, patient: _Patient, profile: UnitProfile, admitted: _Time, *, may_die: bool
) -> _Time | None:
    """Add one admission with its stays, diagnoses, drugs and note; return the time of death, if it was the last."""
    draw = made.draw
    died = may_die and draw.random() < 0.12
    discharged = admitted + _Days(days=draw.randrange(4, 22), minutes=draw.randrange(1440))
    hadm = FIRST_ADMISSION + len(made.rows["ADMISSIONS"])
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
        TEXT=compose_note(draw, profile, facts),
    )
    return discharged if died else None


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
            ICUSTAY_ID=FIRST_STAY + len(made.rows["ICUSTAYS"]),
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
