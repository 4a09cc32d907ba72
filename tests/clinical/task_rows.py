"""Rows of the common record for one patient, and the examples of a task made of them."""

from __future__ import annotations

import datetime
from typing import Any

import duckdb

from fedpriv.clinical.examples import examples
from fedpriv.clinical.rows import LeftOut
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.stock_templates import template_of
from fedpriv.study.template import parse_template

DAY = datetime.timedelta(days=1)
BEGIN = datetime.datetime(2150, 1, 1, 12)


class Record:
    """Tables of the common record, filled by a test."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self.connection = duckdb.connect(":memory:")
        for spec in SPECS.values():
            columns = ", ".join(f"{column.name} {column.type}" for column in spec.needed)
            self.connection.execute(f"CREATE TABLE {spec.table} ({columns})")
            for row in rows.get(spec.table, []):
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                self.connection.execute(f"INSERT INTO {spec.table} ({names}) VALUES ({marks})", [*row.values()])  # noqa: S608

    def has(self, name):
        return name in SPECS

    def rows(self, sql, parameters=None):
        return self.connection.execute(sql, parameters or {}).fetchall()

    def stream(self, sql, parameters=None):
        yield from self.rows(sql, parameters)


def told(tables, task, template=None):
    tally = LeftOut()
    used = parse_template(template, source="own.txt") if template else template_of(task, {})
    return list(examples(tables, task, used, tally)), tally


def stay(hadm=101, **changed):
    return {
        "subject_id": 11, "hadm_id": hadm, "admittime": BEGIN, "dischtime": BEGIN + 5 * DAY,
        "admission_type": "EMERGENCY", "admission_location": "EMERGENCY ROOM ADMIT", "discharge_location": "HOME",
        "diagnosis": "FEVER", "hospital_expire_flag": 0, **changed,
    }  # fmt: skip


def patient(subject=11, **changed):
    return {"subject_id": subject, "gender": "M", "dob": datetime.datetime(2080, 1, 1), **changed}


def note(text, *, hadm=101, day=1, category="Nursing", **changed):
    at = BEGIN + (day - 1) * DAY
    row = {"chartdate": at.replace(hour=0), "charttime": at, "category": category, "description": "Report"}
    return {"subject_id": 11, "hadm_id": hadm, "text": text, **row, **changed}
