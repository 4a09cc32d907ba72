"""A table where the hospital has it, as SQL over text fields that are numbered, and what a source of tables can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedpriv.errors import DataError

Progress = Callable[[float], None]


@dataclass(frozen=True)
class SourceTable:
    """One table, ready to be read.

    Nothing of a header or of a path goes into SQL but as a parameter or a quoted identifier.

    Attributes
    ----------
    label : str
        What messages call it: its file's name, or its schema and name.
    columns : tuple of str
        Its columns as found.
    relation : str
        SQL that gives its rows in their order; the columns are text, named ``f0``, ``f1`` and so on.
    parameters : dict
        What the SQL needs.
    digest : str
        SHA-256 (hex) of the bytes that are read: the same table has the same.
    size_bytes : int
        About how much text it holds.
    is_csv : bool
        Whether lines can be broken: duckdb notes those that it leaves out.
    ends_within_quotes : bool
        Whether a quoted field of a CSV file is never closed.
    """

    label: str
    columns: tuple[str, ...]
    relation: str
    parameters: dict[str, Any]
    digest: str
    size_bytes: int
    is_csv: bool = False
    ends_within_quotes: bool = field(default=False, kw_only=True)


class Source(Protocol):
    """Where the tables of one hospital are."""

    @property
    def location(self) -> str:
        """The place in words, without a password."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of what is there, as they are written there."""
        ...

    def find(self, table: str) -> str | None:
        """Return what holds MIMIC-III's ``table`` under its own name, in any case; None if nothing does.

        Raises
        ------
        DataError
            If two do.
        """
        ...

    def open(self, name: str, *, delimiter: str, scratch: Path, on_progress: Progress) -> SourceTable:
        """Check one of :meth:`names`, and return it ready to be read.

        Parameters
        ----------
        name : str
            As in :meth:`names`, or in a mapping.
        delimiter : str
            What stands between the fields of a CSV file.
        scratch : Path
            A private folder that lives as long as the table is read.
        on_progress : Callable[[float], None]
            Called with the done fraction.

        Raises
        ------
        DataError
            If it is not there or cannot be read.
        """
        ...

    @property
    def attach(self) -> str | None:
        """SQL that a connection must run first."""
        ...


def quoted(identifier: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def unreadable(label: object, problem: str) -> DataError:
    """Return the error that something cannot be read, with the problem in words."""
    return DataError(
        f"{label} cannot be read: {problem}",
        kept="Nothing was written",
        todo="copy the file again and check its digest",
    )


def once(table: str, found: Sequence[str], location: str) -> str | None:
    """Return the only one of ``found``, None if there is none.

    Raises
    ------
    DataError
        If there are two.
    """
    if len(found) > 1:
        raise DataError(
            f"{location} has {table} twice: {' and '.join(sorted(found)[:2])}",
            kept="Nothing was written",
            todo="keep one of them",
        )
    return found[0] if found else None
