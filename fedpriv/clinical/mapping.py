"""``mapping.yaml``: how tables of another schema become the MIMIC-III tables that fedpriv reads.

Only names and codes stand in it, no data and no secret. See ``docs/mapping.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedpriv.clinical.schema import NEEDED_TABLES, SPECS, TableSpec
from fedpriv.errors import DataError, PlanError
from fedpriv.study import load_yaml, validate_section
from fedpriv.study.names import Title
from fedpriv.study.section import Section

_ValueT = TypeVar("_ValueT")

_DIRECTIVE = re.compile(r"%(-?[A-Za-z]|.|$)")
_MONTHS = ("m", "b", "B")
_KNOWN_DIRECTIVES = frozenset({"Y", "d", "H", "I", "M", "S", "p", "f", "%", *_MONTHS})


def _file_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or set(name) & set("*?[]\\"):
        raise ValueError("a path below the folder with the tables is needed, without .. * ? [ ] and backslash")
    if not re.search(r"\.(csv|csv\.gz|parquet)$", name, re.IGNORECASE):
        raise ValueError("a name that ends with .csv, .csv.gz or .parquet is needed")
    return name


def _date_format(text: str) -> str:
    """Accept only formats that read a date in one way: no two-digit year, no zone, no half of a 12-hour clock."""
    found = [directive.lstrip("-") for directive in _DIRECTIVE.findall(text)]
    unknown = sorted({f"%{directive}" for directive in found if directive not in _KNOWN_DIRECTIVES})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be used; use %Y %m %b %B %d %H %I %M %S %f %p %%")
    used = [directive for directive in found if directive != "%"]
    if len(used) != len(set(used)) or len([part for part in _MONTHS if part in used]) != 1 or not {"Y", "d"} <= {*used}:
        raise ValueError("a four-digit year (%Y), a month (%m, %b or %B) and a day (%d) are needed, each once")
    if ("I" in used) != ("p" in used) or {"H", "I"} <= {*used}:
        raise ValueError("hours are %H, or %I with %p")
    return text


FileName = Annotated[Title, AfterValidator(_file_name)]
DateFormat = Annotated[Title, AfterValidator(_date_format)]
Text = Annotated[str, StringConstraints(max_length=1000)]


class Constant(Section):
    """A column that holds the same in every row; ``""`` leaves it empty."""

    constant: Text


Source = Annotated[
    Annotated[Title, Tag("their column")] | Annotated[Constant, Tag("constant")],
    Discriminator(lambda value: "constant" if isinstance(value, dict | Constant) else "their column"),
]


class Values(Section):
    """A code list: their value to the value of MIMIC-III; ``""`` stands for an empty field.

    Values are compared after blanks around them are removed, upper and lower case being different. An empty field
    stays empty.
    """

    map: dict[Annotated[Text, StringConstraints(min_length=1)], Text] = Field(min_length=1)
    complete: bool = Field(default=True, description="a value that is not in the list is an error, else it passes")

    @field_validator("map")
    @classmethod
    def _trimmed(cls, value: dict[str, str]) -> dict[str, str]:
        blank = [theirs for theirs in value if theirs != theirs.strip()]
        if blank:
            raise ValueError(f"{blank[0]!r} begins or ends with a blank and can never be found")
        return value


class TableMapping(Section):
    """Where one MIMIC-III table comes from.

    Attributes
    ----------
    file : str, optional
        Their CSV, csv.gz or Parquet file, below the folder with the tables.
    table : str, optional
        Their table in a database, as ``schema.table`` or ``table``. One of the two is given.
    delimiter : str
        What stands between its fields.
    columns : dict
        Name in MIMIC-III, in lower case, to the name in their header, or a constant.
    dates : dict
        Name in MIMIC-III to their format of it; a column without one is read as ``YYYY-MM-DD HH:MM:SS``.
    values : dict
        Name in MIMIC-III to a code list.
    icd9 : {"dotted", "plain"}, optional
        How they write ICD-9 codes: ``410.11`` or ``41011``, in upper or lower case. Without it codes are left as they
        are, and must be written as in MIMIC-III.
    """

    file: FileName | None = None
    table: Title | None = None
    delimiter: Literal[",", ";", "\t", "|"] = ","
    columns: dict[str, Source]
    dates: dict[str, DateFormat] = Field(default_factory=dict)
    values: dict[str, Values] = Field(default_factory=dict)
    icd9: Literal["dotted", "plain"] | None = None

    @field_validator("columns", "dates", "values")
    @classmethod
    def _lower(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return _without_case(value, upper=False, what=f"{info.field_name} names")

    @model_validator(mode="after")
    def _has_one_place(self) -> TableMapping:
        if (self.file is None) == (self.table is None):
            raise ValueError("either file or table is needed: where the rows are")
        return self

    @property
    def place(self) -> str:
        """The file or the table."""
        return self.file or self.table or ""


class SchemaMapping(Section):
    """``mapping.yaml``."""

    fedpriv: Literal[1] = 1
    tables: dict[str, TableMapping]

    @field_validator("tables")
    @classmethod
    def _fits(cls, value: dict[str, TableMapping]) -> dict[str, TableMapping]:
        tables = _without_case(value, upper=True, what="tables names")
        unknown = sorted(set(tables) - set(SPECS))
        if unknown:
            raise ValueError(f"there is no table {', '.join(unknown)}; fedpriv reads {', '.join(SPECS)}")
        missing = [name for name in NEEDED_TABLES if name not in tables]
        if missing:
            raise ValueError(f"{', '.join(missing)} cannot be left out")
        problems = [p for name, table in tables.items() for p in _problems(SPECS[name], table)]
        if problems:
            raise ValueError("; ".join(problems[:5]))
        return tables


def load_mapping(path: Path) -> SchemaMapping:
    """Read a ``mapping.yaml``.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    DataError
        If it cannot be read, is not such YAML, has an unknown key, or does not say where a column comes from; tables
        and columns are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{path} cannot be read ({reason})", todo="give the path of a mapping.yaml") from error
    try:
        value = load_yaml(text, source=path.name)
        unquoted = next(_keys_that_are_no_text(value, ()), None)
        if unquoted:
            raise DataError(
                f"{path.name}: {unquoted} is not text: YAML reads it as a number, a date or yes/no",
                kept="Nothing was changed",
                todo="write it in quotes",
            )
        return validate_section(SchemaMapping, value, source=path.name)
    except PlanError as error:
        raise DataError(
            error.what, kept="Nothing was changed", todo=f"correct {path}; docs/mapping.md explains each setting"
        ) from error


def _without_case(value: dict[str, _ValueT], *, upper: bool, what: str) -> dict[str, _ValueT]:
    """Return ``value`` with its keys in one case; raise if two were the same name."""
    result: dict[str, _ValueT] = {}
    for name, item in value.items():
        key = name.upper() if upper else name.lower()
        if key in result:
            raise ValueError(f"{what} {name.upper()} twice")
        result[key] = item
    return result


def _problems(spec: TableSpec, table: TableMapping) -> Iterator[str]:
    """Give what does not fit the table of MIMIC-III, each as words that name table and column."""
    types = {column.name: column.type for column in spec.needed}
    for section in ("columns", "dates", "values"):
        for name in getattr(table, section):
            if name not in types:
                known = ", ".join(types)
                yield f"{spec.name} > {section} > {name}: fedpriv reads no such column; it reads {known}"
    for name in [column.name for column in spec.needed if not column.may_lack]:
        if name not in table.columns:
            yield f"{spec.name} > columns > {name}: it is missing; name their column, or write {{constant: ''}}"
    for name in table.dates:
        if types.get(name, "TIMESTAMP") != "TIMESTAMP":
            yield f"{spec.name} > dates > {name}: it is no date"
        if name in table.values:
            yield f"{spec.name} > values > {name}: it has a date format already"
    for section in ("dates", "values"):
        for name in getattr(table, section):
            if isinstance(table.columns.get(name), Constant):
                yield f"{spec.name} > {section} > {name}: a constant needs none; write what MIMIC-III has"
    if table.icd9 and ("icd9_code" not in types or "icd9_code" in table.values):
        yield f"{spec.name} > icd9: it has no column icd9_code, or that column has values already"
    yield from _used_twice(spec, table)


def _used_twice(spec: TableSpec, table: TableMapping) -> Iterator[str]:
    user_of: dict[str, str] = {}
    for name, source in table.columns.items():
        if isinstance(source, Constant):
            continue
        first = user_of.setdefault(source.strip().lower(), name)
        if first != name:
            yield f"{spec.name} > columns > {name}: {source} is the source of {first} already"


def _keys_that_are_no_text(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Give the path of each key that YAML did not read as text: ``no`` is False there, and ``01`` is 1."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = (*path, str(key))
            if not isinstance(key, str):
                yield " > ".join(where)
            yield from _keys_that_are_no_text(item, where)
