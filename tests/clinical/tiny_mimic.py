"""Tiny MIMIC-III tables as rows of text, and reading csv.gz back."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

Rows = list[list[str]]


def as_csv(rows: Rows) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


def read_table(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def tiny_tables() -> dict[str, Rows]:
    """Three patients: one over 89 who died, one with two admissions in two units, one with little told."""
    return {
        "PATIENTS": [
            ["row_id", "subject_id", "gender", "dob"],
            ["1", "11", "F", "1850-03-05 00:00:00"],
            ["2", "12", "M", "2080-06-01 00:00:00"],
            ["3", "13", "", "2100-01-01 00:00:00"],
        ],
        "ADMISSIONS": [
            [
                *("row_id", "subject_id", "hadm_id", "admittime", "dischtime", "admission_type", "admission_location"),
                *("discharge_location", "diagnosis", "hospital_expire_flag"),
            ],
            _admission(
                "1", "11", "101", "2150-01-01", "2150-01-03", "EMERGENCY", "DEAD/EXPIRED", "FEVER;S/P FALL", "1"
            ),
            _admission("2", "12", "102", "2150-02-01", "2150-02-02", "ELECTIVE", "HOME", "HERNIA", "0"),
            _admission("3", "12", "103", "2150-09-01", "2150-09-11", "URGENT", "SNF", "", "0"),
            ["4", "13", "104", "2150-03-01 10:00:00", "", "", "", "", "", ""],
        ],
        "ICUSTAYS": [
            ["row_id", "subject_id", "hadm_id", "icustay_id", "first_careunit", "intime", "los"],
            ["1", "11", "101", "201", "MICU", "2150-01-01 12:00:00", "1.25"],
            ["2", "12", "103", "203", "MICU", "2150-09-02 12:00:00", "0.5"],
            ["3", "12", "102", "202", "SICU", "2150-02-01 12:00:00", ""],
            ["4", "13", "104", "204", "CCU", "2150-03-01 12:00:00", "2"],
        ],
        "DIAGNOSES_ICD": [
            ["row_id", "subject_id", "hadm_id", "seq_num", "icd9_code"],
            ["1", "11", "101", "2", "0380"],
            ["2", "11", "101", "1", "99999"],
            ["3", "11", "101", "", ""],
        ],
        "D_ICD_DIAGNOSES": [
            ["row_id", "icd9_code", "short_title", "long_title"],
            ["1", "0380", "Strep", "Streptococcal, said septicemia"],
        ],
        "PRESCRIPTIONS": [
            ["row_id", "subject_id", "hadm_id", "startdate", "drug_type", "drug"],
            ["1", "11", "101", "2150-01-02 00:00:00", "MAIN", "Heparin  Sodium"],
            ["2", "11", "101", "2150-01-01 00:00:00", "MAIN", "Aspirin"],
            ["3", "11", "101", "2150-01-03 00:00:00", "MAIN", "ASPIRIN"],
            ["4", "11", "101", "2150-01-01 00:00:00", "BASE", "D5W"],
        ],
    }


def _admission(*fields: str) -> list[str]:
    row, subject, hadm, into, out, *rest, problem, died = fields
    kind, to = rest
    times = [f"{into} 12:00:00", f"{out} 12:00:00"]
    return [row, subject, hadm, *times, kind, "EMERGENCY ROOM ADMIT", to, problem, died]


def notes(*rows: list[str]) -> Rows:
    header = ["row_id", "subject_id", "hadm_id", "chartdate", "category", "description", "iserror", "text"]
    return [header, *rows]
