"""What a domain says of its harmonised data before a study starts: which columns it has, and roughly how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from fedpriv.study.names import Email, Sha256, Slug
from fedpriv.study.section import Section

TableName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z_]{2,31}$")]
ColumnName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]

LEAST_COUNT = 10
"""A number of patients below this is not told."""


class ShardStatement(Section):
    """A domain's statement about its shard; signed, so that any other domain can check it.

    *Guarantee*: beside names that fedpriv itself chose it holds four numbers, each rounded down by :func:`coarse`, and
    for each column only whether most rows have it: no value, no rare class, no exact count.

    Attributes
    ----------
    member, dataset
        Whose, and of which dataset.
    schema_sha256 : str
        Digest of the common record's rules: tables, columns, types, code systems, units. Equal only where the same
        version of them was applied.
    task_sha256 : str
        Digest of task and template that the examples were told with.
    tables : dict of str to tuple of str
        Each table of the record to its columns that are filled in at least half of the rows.
    patients, admissions, examples, heldout_examples : int
        About how many; 0 is fewer than 10.
    """

    member: Email
    dataset: Slug
    schema_sha256: Sha256
    task_sha256: Sha256
    tables: dict[TableName, tuple[ColumnName, ...]] = Field(max_length=32)
    patients: int = Field(ge=0)
    admissions: int = Field(ge=0)
    examples: int = Field(ge=0)
    heldout_examples: int = Field(ge=0)


def coarse(count: int) -> int:
    """Return a count rounded down to two digits, at least to a multiple of ten: 7 as 0, 58 as 50, 46520 as 46000."""
    if count < LEAST_COUNT:
        return 0
    step = max(10, 10 ** (len(str(count)) - 2))
    return count // step * step


def differences(statements: Mapping[str, ShardStatement], needed: Mapping[str, Sequence[str]]) -> list[str]:
    """Return how shards differ, in words, the most serious first; empty if they agree.

    Shards agree if the same rules and the same task were applied, and of what the task reads, each has what the others
    have. How much they hold is no difference.

    Parameters
    ----------
    statements : Mapping[str, ShardStatement]
        By address.
    needed : Mapping[str, Sequence[str]]
        The tables that the task reads, each to its columns.
    """
    found: list[str] = []
    names = sorted(statements)
    for what, of in _DIGESTS:
        values = [of(statements[name]) for name in names]
        usual = max(values, key=values.count)
        odd = [name for name, value in zip(names, values, strict=True) if value != usual]
        if odd:
            found.append(f"{', '.join(odd)} {what}")
    for table, columns in needed.items():
        having = [name for name in names if table in statements[name].tables]
        lacking = [name for name in names if name not in having]
        if having and lacking:
            found.append(f"{', '.join(lacking)} without {table}, which {', '.join(having)} has")
        for column in columns:
            filled = [name for name in having if column in statements[name].tables[table]]
            empty = [name for name in having if name not in filled]
            if filled and empty:
                found.append(f"{', '.join(empty)} with {table}.{column.upper()} mostly empty, which others have")
    return found


_DIGESTS: tuple[tuple[str, Callable[[ShardStatement], str]], ...] = (
    ("harmonised by other rules (another version of fedpriv)", lambda statement: statement.schema_sha256),
    ("told for another task or by another template", lambda statement: statement.task_sha256),
)
