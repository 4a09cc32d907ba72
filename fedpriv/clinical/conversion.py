"""The conversion of one mapped column, as SQL.

Nothing of a mapping or of a header goes into SQL: fields are numbered (``f0``, ``f1``), columns are named as in
``schema.py``, and formats, code lists and constants are parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedpriv.clinical.mapping import Constant, TableMapping
from fedpriv.clinical.schema import Column

_EMPTY = Constant(constant="")
_CODES = {
    ("diagnosis", "dotted"): r"([0-9]{3}|V[0-9]{2})(\.[0-9]{1,2})?|E[0-9]{3}(\.[0-9])?",
    ("diagnosis", "plain"): r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}",
    ("procedure", "dotted"): r"[0-9]{2}(\.[0-9]{1,2})?",
    ("procedure", "plain"): r"[0-9]{2,4}",
}
_EXAMPLES = {
    ("diagnosis", "dotted"): "with a dot, as 410.11, 311 or v15.82",
    ("diagnosis", "plain"): "without a dot, as 41011, 311 or V1582",
    ("procedure", "dotted"): "with a dot, as 38.93 or 96.6",
    ("procedure", "plain"): "without a dot, as 3893 or 966",
}
_WHOLE_NUMBER = r"\s*[+-]?[0-9]+(\.0*)?\s*"
_TYPE_IN_WORDS = {"BIGINT": "is not a whole number", "DOUBLE": "is not a number", "TIMESTAMP": "is not a time"}


@dataclass(frozen=True)
class Check:
    """A condition under which a row cannot be converted.

    Attributes
    ----------
    problem : str
        What is wrong then, in words, without the value.
    bad : str
        SQL over a row of the file.
    """

    problem: str
    bad: str


@dataclass(frozen=True)
class Conversion:
    """How one column is made.

    Attributes
    ----------
    column : Column
        The column of MIMIC-III.
    source : str
        The name of their column, or ``""`` for a constant.
    field : str
        The field that it comes from, such as ``f3``, or ``""``.
    sql : str
        Its text as MIMIC-III writes it, over a row of the file; empty is NULL.
    checks : tuple of Check
        What must not be; the first that holds is told.
    parameters : dict
        What the SQL needs.
    rule : str
        What is done, in words; ``""`` if the text is taken as it is.
    """

    column: Column
    source: str
    field: str
    sql: str
    checks: tuple[Check, ...]
    parameters: dict[str, Any]
    rule: str = ""


def convert(column: Column, table: TableMapping, field: str) -> Conversion:
    """Return the conversion of ``column``.

    Parameters
    ----------
    column : Column
        The column of MIMIC-III; one that the mapping does not name is empty.
    table : TableMapping
        The mapping of its table.
    field : str
        SQL name of the field it comes from, such as ``f3``; not used for a constant.

    Returns
    -------
    Conversion
        Its SQL is complete: a field that it makes NULL without being empty fails one of its checks, or is translated
        to an empty one by the code list.
    """
    name, source = column.name, table.columns.get(column.name, _EMPTY)
    trimmed = f"nullif(trim({field}), '')"
    rule = ""
    if isinstance(source, Constant):
        sql, checks, parameters = f"nullif(${name}_is::VARCHAR, '')", (), {f"{name}_is": source.constant}
    elif name in table.values:
        sql, checks, parameters = _translated(name, table, field, trimmed)
        rule = f"by a list of {len(table.values[name].map)} words"
    elif name in table.dates:
        form = table.dates[name]
        time = f"try_strptime({trimmed}, ${name}_form)"
        sql, parameters = f"CAST({time} AS VARCHAR)", {f"{name}_form": form}
        wrong = f"{trimmed} IS NOT NULL AND coalesce(year({time}) NOT BETWEEN 1000 AND 9999, true)"
        checks = (Check(f"does not match the format {form}", wrong),)
        rule = f"the format {form} is read"
    elif column.codes and table.icd9:
        code, form = f"upper({trimmed})", _CODES[column.codes, table.icd9]
        sql, parameters = f"replace({code}, '.', '')", {}
        wrong = f"NOT regexp_full_match({code}, '{form}')"
        checks = (Check(f"is not an ICD-9 code written {_EXAMPLES[column.codes, table.icd9]}", wrong),)
        rule = "ICD-9 codes are written without a dot, in upper case"
    else:
        sql, checks, parameters = field, (), {}
    named = "" if isinstance(source, Constant) else source
    return Conversion(
        column, named, field if named else "", sql, (*checks, *_type_checks(column, sql)), parameters, rule
    )


def _translated(
    name: str, table: TableMapping, field: str, trimmed: str
) -> tuple[str, tuple[Check, ...], dict[str, Any]]:
    values = table.values[name]
    place = f"list_position(${name}_theirs::VARCHAR[], {trimmed})"
    sql = f"nullif((${name}_ours::VARCHAR[])[{place}], '')"
    checks = (Check("has no translation in values", f"{trimmed} IS NOT NULL AND {place} IS NULL"),)
    if not values.complete:
        sql, checks = f"CASE WHEN {place} IS NULL THEN {field} ELSE {sql} END", ()
    return sql, checks, {f"{name}_theirs": [*values.map.keys()], f"{name}_ours": [*values.map.values()]}


def _type_checks(column: Column, sql: str) -> tuple[Check, ...]:
    checks: list[Check] = []
    if column.type != "VARCHAR":
        wrong = f"TRY_CAST({sql} AS {column.type}) IS NULL"
        if column.type == "BIGINT":  # duckdb would round 1.5 to 2
            wrong = f"({wrong} OR NOT regexp_full_match({sql}, '{_WHOLE_NUMBER}'))"
        if column.type == "DOUBLE":
            wrong = f"({wrong} OR NOT isfinite(TRY_CAST({sql} AS DOUBLE)))"
        checks.append(Check(_TYPE_IN_WORDS[column.type], f"{sql} IS NOT NULL AND {wrong}"))
    if column.filled:
        checks.append(Check("is empty", f"{sql} IS NULL"))
    return tuple(checks)
