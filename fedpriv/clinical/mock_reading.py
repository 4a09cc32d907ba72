"""Reads the mock side of another party's dataset: made-up tables and texts, which are checked like anything of others.

No byte of it is trusted: sizes are bounded before and while it is unpacked, and nothing but text and counts comes out.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from fedpriv.clinical.schema import SPECS
from fedpriv.errors import UntrustedError
from fedpriv.files import parse_json
from fedpriv.study.section import Section
from fedpriv.study.validation import in_words

MAX_SCHEMA_BYTES = 2**20
MAX_EXAMPLES_BYTES = 32 * 2**20
MAX_TABLE_BYTES = 32 * 2**20
"""Of one table, unpacked."""
MAX_EXAMPLES, MAX_ROWS = 5_000, 200_000
MAX_TEXTS = 200

_WORDS = re.compile(r"\S+")
_MIXTURES = {
    "first care unit": ("ICUSTAYS", "first_careunit"),
    "sex": ("PATIENTS", "gender"),
    "type of admission": ("ADMISSIONS", "admission_type"),
}
"""What is counted of the tables, each with its column."""
MOST_CATEGORIES = 8

ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class _Table(Section):
    file: Annotated[str, StringConstraints(pattern=r"^tables/[A-Z][A-Z0-9_]{0,63}\.csv\.gz$")]
    columns: tuple[ColumnName, ...] = Field(max_length=256)


class _Examples(Section):
    file: Literal["examples.jsonl"]
    count: int = Field(ge=0)
    fields: dict[str, str] = Field(max_length=16)


class _Schema(Section):
    schema_version: Literal[3]
    synthetic: Literal[True]
    task: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,48}$")]
    examples: _Examples
    tables: dict[TableName, _Table] = Field(max_length=64)


class _Example(Section):
    text: str
    patient: int
    questions: tuple[str, ...] = Field(default=(), max_length=64)
    answers: tuple[str, ...] = Field(default=(), max_length=64)


@dataclass(frozen=True, kw_only=True)
class MockColumn:
    """A column: its name in lower case, what the common record has there, and the share of rows that fill it."""

    name: str
    type: str
    filled: float


@dataclass(frozen=True, kw_only=True)
class MockTable:
    """A table: how many made-up rows it has, and its columns."""

    name: str
    rows: int
    columns: tuple[MockColumn, ...]


@dataclass(frozen=True, kw_only=True)
class MockSide:
    """The mock side of one domain's dataset.

    Attributes
    ----------
    task : str
        What its examples are of.
    texts : tuple of str
        The first of them, as they are.
    lengths : tuple of int
        Words of every text.
    patients : int
        Made-up patients that texts are of.
    answers : dict of str to (int, int)
        By question: how often yes, of how many.
    tables : tuple of MockTable
        By name.
    mixtures : dict of str to dict of str to int
        How often each category occurs, the most frequent first.
    """

    task: str
    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    patients: int
    answers: dict[str, tuple[int, int]] = field(default_factory=dict)
    tables: tuple[MockTable, ...] = ()
    mixtures: dict[str, dict[str, int]] = field(default_factory=dict)


def read_mock(folder: Path) -> MockSide:
    """Return what a mock folder holds.

    Raises
    ------
    UntrustedError
        If it is none, does not call itself made up, is too large, or holds anything else than it says.
    """
    try:
        value = parse_json(_bounded(folder / "schema.json", MAX_SCHEMA_BYTES), source="the mock side's schema.json")
        schema = _Schema.model_validate(value, strict=False)
    except ValidationError as error:
        raise _odd(f"schema.json: {in_words(error)}") from error
    examples = list(_examples(folder))
    tables, mixtures = [], {}
    for name, table in sorted(schema.tables.items()):
        counted = [column for place, column in _MIXTURES.values() if place == name]
        counts: dict[str, Counter[str]] = {column: Counter() for column in counted}
        tables.append(_table(_place(folder, table.file), name, counts))
        for what, (place, column) in _MIXTURES.items():
            if place == name and counts[column]:
                mixtures[what] = _frequent(counts[column])
    return MockSide(
        task=schema.task,
        texts=tuple(example.text for example in examples[:MAX_TEXTS]),
        lengths=tuple(sum(1 for _ in _WORDS.finditer(example.text)) for example in examples),
        patients=len({example.patient for example in examples}),
        answers=_answers(examples),
        tables=tuple(tables),
        mixtures={what: mixtures[what] for what in _MIXTURES if what in mixtures},
    )


def _odd(what: str) -> UntrustedError:
    return UntrustedError(
        f"This is no mock side as fedpriv makes it: {what}", kept="It was not used", todo="ask the domain's data owner"
    )


def _place(folder: Path, file: str) -> Path:
    """Return where a table lies: where it was written, or, once syft sent it, beside all other files."""
    path = folder / file
    return path if path.exists() else folder / path.name


def _bounded(path: Path, most: int) -> bytes:
    """Return a plain file's bytes if it has no more than ``most``; links are not followed."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
            raise _odd(f"{path.name} is missing, no plain file, or larger than {most} bytes")
        with path.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise _odd(f"{path.name} cannot be read") from error


def _examples(folder: Path) -> Iterator[_Example]:
    lines = _bounded(folder / "examples.jsonl", MAX_EXAMPLES_BYTES).splitlines()
    for number, line in enumerate(lines[:MAX_EXAMPLES], 1):
        try:
            yield _Example.model_validate_json(line, strict=False)
        except ValidationError as error:
            raise _odd(f"line {number} of examples.jsonl: {in_words(error)}") from error


def _answers(examples: list[_Example]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for example in examples:
        for question, answer in zip(example.questions, example.answers, strict=False):
            yes, of = found.get(question, (0, 0))
            found[question] = (yes + (answer == "yes"), of + 1)
    return found


def _table(path: Path, name: str, counts: dict[str, Counter[str]]) -> MockTable:
    """Return a table, and count the categories of some of its columns into ``counts``."""
    text = _unpacked(_bounded(path, MAX_TABLE_BYTES), path.name)
    try:
        rows = csv.reader(io.StringIO(text), strict=True)
        head = [column.lower() for column in next(rows, [])]
        filled, read = [0] * len(head), 0
        for row in itertools.islice(rows, MAX_ROWS):
            read += 1
            for place, cell in enumerate(row[: len(head)]):
                filled[place] += bool(cell)
                if cell and head[place] in counts and len(counts[head[place]]) < 1000:
                    counts[head[place]][cell[:80]] += 1
    except csv.Error as error:
        raise _odd(f"{path.name} is no CSV ({error})") from error
    types = {column.name: column.type.lower() for column in SPECS[name].needed} if name in SPECS else {}
    columns = zip(head[:256], filled, strict=False)
    return MockTable(
        name=name,
        rows=read,
        columns=tuple(
            MockColumn(name=column[:64], type=types.get(column, "text"), filled=count / read if read else 0.0)
            for column, count in columns
        ),
    )


def _unpacked(data: bytes, name: str) -> str:
    try:
        unpacking = zlib.decompressobj(wbits=31)
        text = unpacking.decompress(data, MAX_TABLE_BYTES)
        if unpacking.unconsumed_tail:
            raise _odd(f"{name} unpacks to more than {MAX_TABLE_BYTES} bytes")
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise _odd(f"{name} is no packed text") from error


def _frequent(counts: Counter[str]) -> dict[str, int]:
    """Return the most frequent categories, and all others as one."""
    first = dict(counts.most_common(MOST_CATEGORIES))
    others = counts.total() - sum(first.values())
    return first | ({"others": others} if others else {})
