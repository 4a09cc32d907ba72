"""The tables and columns of MIMIC-III v1.4 that are read, and those that synthetic tables have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """

    name: str
    type: ColumnType = "VARCHAR"
    filled: bool = False
    may_lack: bool = False


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
    only : str
        SQL condition on the text columns for the rows to read, or ``""`` for all.
    """

    name: str
    needed: tuple[Column, ...]
    key: str = ""
    optional: bool = False
    only: str = ""

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
        ),
        TableSpec("DIAGNOSES_ICD", (_SUBJECT, _ADMISSION, Column("seq_num", "BIGINT"), Column("icd9_code"))),
        TableSpec(
            "D_ICD_DIAGNOSES",
            (Column("icd9_code", filled=True), Column("short_title"), Column("long_title")),
            optional=True,
        ),
        TableSpec(
            "PROCEDURES_ICD",
            (_SUBJECT, _ADMISSION, Column("seq_num", "BIGINT"), Column("icd9_code")),
            optional=True,
        ),
        TableSpec(
            "D_ICD_PROCEDURES",
            (Column("icd9_code", filled=True), Column("short_title"), Column("long_title")),
            optional=True,
        ),
        TableSpec(
            "PRESCRIPTIONS",
            (_SUBJECT, _ADMISSION, Column("startdate", "TIMESTAMP"), Column("drug_type"), Column("drug")),
            optional=True,
            only="drug IS NOT NULL AND coalesce(upper(trim(drug_type)), 'MAIN') = 'MAIN'",
        ),
        TableSpec(
            "LABEVENTS",
            (
                _SUBJECT,
                Column("hadm_id", "BIGINT"),
                Column("itemid", "BIGINT", filled=True),
                Column("charttime", "TIMESTAMP"),
                Column("value"),
                Column("valuenum", "DOUBLE"),
                Column("valueuom"),
                Column("flag", may_lack=True),
            ),
            optional=True,
            only="hadm_id IS NOT NULL AND valuenum IS NOT NULL",
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
            only="coalesce(trim(iserror), '0') <> '1' AND trim(text) <> ''",
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
