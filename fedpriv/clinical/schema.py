"""The tables and columns of MIMIC-III v1.4 that are read, and those that synthetic tables have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_NOTE_CHARACTERS = 100_000
"""The longest note of MIMIC-III has about half as many; what is longer is a mistake of an export."""

ColumnType = Literal["BIGINT", "DOUBLE", "TIMESTAMP", "VARCHAR"]


@dataclass(frozen=True)
class Column:
    """A column that is needed.

    Attributes
    ----------
    name : str
        Its name in lower case; headers are compared without regard to case.
    type : {"BIGINT", "DOUBLE", "TIMESTAMP", "VARCHAR"}
        What its text must hold.
    filled : bool
        Whether an empty field is an error.
    may_lack : bool
        Whether the column itself may be missing; it is empty then.
    codes : {"", "diagnosis", "procedure"}
        Which ICD-9 codes it holds.
    """

    name: str
    type: ColumnType = "VARCHAR"
    filled: bool = False
    may_lack: bool = False
    codes: Literal["", "diagnosis", "procedure"] = ""


@dataclass(frozen=True)
class Rule:
    """A condition on a row, in SQL over its typed columns.

    Attributes
    ----------
    column : str
        The column that it is about.
    words : str
        What is so then, after "is" or "has", such as ``"is before the patient's birth"``.
    when : str
        SQL; ``born`` is the patient's birth; of a laboratory value, ``lab_item`` is its number if texts tell it, and
        ``factor`` makes ``unit`` of the unit that it has.
    """

    column: str
    words: str
    when: str


@dataclass(frozen=True)
class Repair:
    """A :class:`Rule` whose column is given another value.

    Attributes
    ----------
    column, words, when : str
        As of a rule; ``words`` says what is done.
    then : str
        SQL of the new value.
    """

    column: str
    words: str
    when: str
    then: str


@dataclass(frozen=True)
class TableSpec:
    """A table: what is needed of it, and what to read.

    Attributes
    ----------
    name : str
        Its name in the release, in upper case.
    needed : tuple of Column
        Columns that must be there.
    key : str
        The column that must not hold a value twice, or ``""``.
    optional : bool
        Whether texts can be told without the table.
    belongs : {"", "patient", "admission", "admission if told"}
        Whom a row must be of: one that PATIENTS has, one that ADMISSIONS has for the same patient, or either.
    unused : tuple of Rule
        Rows that the common record leaves out, counted: they are in order, and nothing needs them.
    impossible : tuple of Rule
        Rows that are refused.
    repairs : tuple of Repair
        What is mended in a row that is kept, counted.
    large : bool
        Whether the record keeps it in parts, by patients.
    """

    name: str
    needed: tuple[Column, ...]
    key: str = ""
    optional: bool = False
    belongs: Literal["", "patient", "admission", "admission if told"] = ""
    unused: tuple[Rule, ...] = ()
    impossible: tuple[Rule, ...] = ()
    repairs: tuple[Repair, ...] = ()
    large: bool = False

    @property
    def of_patients(self) -> bool:
        """Whether its rows are of patients; the others are dictionaries."""
        return any(column.name == "subject_id" for column in self.needed)

    @property
    def table(self) -> str:
        """The name in SQL."""
        return self.name.lower()


_SUBJECT = Column("subject_id", "BIGINT", filled=True)
_ADMISSION = Column("hadm_id", "BIGINT", filled=True)

SPECS: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec("PATIENTS", (_SUBJECT, Column("gender"), Column("dob", "TIMESTAMP", filled=True)), key="subject_id"),
        TableSpec(
            "ADMISSIONS",
            (
                _SUBJECT,
                _ADMISSION,
                Column("admittime", "TIMESTAMP", filled=True),
                Column("dischtime", "TIMESTAMP"),
                Column("admission_type"),
                Column("admission_location"),
                Column("discharge_location"),
                Column("diagnosis"),
                Column("hospital_expire_flag", "BIGINT"),
            ),
            key="hadm_id",
            belongs="patient",
            impossible=(Rule("admittime", "is before the patient's birth", "admittime < born"),),
            repairs=(
                Repair("dischtime", "was before the admission and is left empty", "dischtime < admittime", "NULL"),
            ),
        ),
        TableSpec(
            "ICUSTAYS",
            (
                _SUBJECT,
                _ADMISSION,
                Column("icustay_id", "BIGINT", filled=True),
                Column("first_careunit", filled=True),
                Column("intime", "TIMESTAMP", filled=True),
                Column("los", "DOUBLE"),
            ),
            key="icustay_id",
            belongs="admission",
            repairs=(Repair("los", "was below zero and is left empty", "los < 0", "NULL"),),
        ),
        TableSpec(
            "DIAGNOSES_ICD",
            (_SUBJECT, _ADMISSION, Column("seq_num", "BIGINT"), Column("icd9_code", codes="diagnosis")),
            belongs="admission",
            unused=(Rule("icd9_code", "is empty", "icd9_code IS NULL"),),
        ),
        TableSpec(
            "D_ICD_DIAGNOSES",
            (Column("icd9_code", filled=True, codes="diagnosis"), Column("short_title"), Column("long_title")),
            optional=True,
        ),
        TableSpec(
            "PROCEDURES_ICD",
            (_SUBJECT, _ADMISSION, Column("seq_num", "BIGINT"), Column("icd9_code", codes="procedure")),
            optional=True,
            belongs="admission",
            unused=(Rule("icd9_code", "is empty", "icd9_code IS NULL"),),
        ),
        TableSpec(
            "D_ICD_PROCEDURES",
            (Column("icd9_code", filled=True, codes="procedure"), Column("short_title"), Column("long_title")),
            optional=True,
        ),
        TableSpec(
            "PRESCRIPTIONS",
            (_SUBJECT, _ADMISSION, Column("startdate", "TIMESTAMP"), Column("drug_type"), Column("drug")),
            optional=True,
            belongs="admission",
            unused=(
                Rule("drug", "is empty", "drug IS NULL OR trim(drug) = ''"),
                Rule("drug_type", "is not MAIN", "upper(trim(drug_type)) <> 'MAIN'"),
            ),
        ),
        TableSpec(
            "LABEVENTS",
            (
                _SUBJECT,
                Column("hadm_id", "BIGINT"),
                Column("itemid", "BIGINT", filled=True),
                Column("charttime", "TIMESTAMP"),
                Column("value", may_lack=True),
                Column("valuenum", "DOUBLE"),
                Column("valueuom"),
                Column("flag", may_lack=True),
            ),
            optional=True,
            belongs="admission",
            unused=(
                Rule("hadm_id", "is empty", "hadm_id IS NULL"),
                Rule("valuenum", "is empty", "valuenum IS NULL"),
                Rule("itemid", "is none of the values that texts tell", "lab_item IS NULL"),
            ),
            impossible=(
                Rule("valueuom", "is no unit that is known for this value", "factor IS NULL AND spell(valueuom) <> ''"),
                Rule("valueuom", "is empty, and this value has a unit", "factor IS NULL"),
            ),
            repairs=(
                Repair("valuenum", "was converted to the record's unit", "factor <> 1", "valuenum * factor"),
                Repair("valueuom", "was written as the record does", "valueuom IS DISTINCT FROM unit", "unit"),
            ),
            large=True,
        ),
        TableSpec(
            "D_LABITEMS",
            (Column("itemid", "BIGINT", filled=True), Column("label"), Column("fluid")),
            key="itemid",
            optional=True,
        ),
        TableSpec(
            "NOTEEVENTS",
            (
                _SUBJECT,
                Column("hadm_id", "BIGINT"),
                Column("chartdate", "TIMESTAMP"),
                Column("charttime", "TIMESTAMP", may_lack=True),
                Column("storetime", "TIMESTAMP", may_lack=True),
                Column("category"),
                Column("description"),
                Column("iserror"),
                Column("text"),
            ),
            optional=True,
            belongs="admission if told",
            unused=(
                Rule("iserror", "marks the note as an error", "trim(iserror) = '1'"),
                Rule("text", "is empty", "text IS NULL OR trim(text) = ''"),
            ),
            repairs=(
                Repair(
                    "text",
                    f"was longer than {MAX_NOTE_CHARACTERS:,} characters and is cut there",
                    f"length(text) > {MAX_NOTE_CHARACTERS}",
                    f"left(text, {MAX_NOTE_CHARACTERS})",
                ),
            ),
            large=True,
        ),
    )
}
NEEDED_TABLES = tuple(name for name, spec in SPECS.items() if not spec.optional)
OPTIONAL_TABLES = tuple(name for name, spec in SPECS.items() if spec.optional)

RELEASE_COLUMNS: dict[str, tuple[str, ...]] = {
    "PATIENTS": ("ROW_ID", "SUBJECT_ID", "GENDER", "DOB", "DOD", "DOD_HOSP", "DOD_SSN", "EXPIRE_FLAG"),
    "ADMISSIONS": (
        "ROW_ID", "SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "DEATHTIME", "ADMISSION_TYPE",
        "ADMISSION_LOCATION", "DISCHARGE_LOCATION", "INSURANCE", "LANGUAGE", "RELIGION", "MARITAL_STATUS",
        "ETHNICITY", "EDREGTIME", "EDOUTTIME", "DIAGNOSIS", "HOSPITAL_EXPIRE_FLAG", "HAS_CHARTEVENTS_DATA",
    ),
    "ICUSTAYS": (
        "ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "DBSOURCE", "FIRST_CAREUNIT", "LAST_CAREUNIT",
        "FIRST_WARDID", "LAST_WARDID", "INTIME", "OUTTIME", "LOS",
    ),
    "DIAGNOSES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_DIAGNOSES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "PROCEDURES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_PROCEDURES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "LABEVENTS": (
        "ROW_ID", "SUBJECT_ID", "HADM_ID", "ITEMID", "CHARTTIME", "VALUE", "VALUENUM", "VALUEUOM", "FLAG",
    ),
    "D_LABITEMS": ("ROW_ID", "ITEMID", "LABEL", "FLUID", "CATEGORY", "LOINC_CODE"),
    "PRESCRIPTIONS": (
        "ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "STARTDATE", "ENDDATE", "DRUG_TYPE", "DRUG",
        "DRUG_NAME_POE", "DRUG_NAME_GENERIC", "FORMULARY_DRUG_CD", "GSN", "NDC", "PROD_STRENGTH", "DOSE_VAL_RX",
        "DOSE_UNIT_RX", "FORM_VAL_DISP", "FORM_UNIT_DISP", "ROUTE",
    ),
    "NOTEEVENTS": (
        "ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "STORETIME", "CATEGORY", "DESCRIPTION",
        "CGID", "ISERROR", "TEXT",
    ),
}  # fmt: skip
"""All columns of these tables in the full release, in its order."""
