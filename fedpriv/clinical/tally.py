"""What harmonising found, as numbers and words: by table and column, and never a value."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.study.section import Section

FIRST_ROWS = 5


class Finding(Section):
    """Something that holds for some rows of a table.

    Attributes
    ----------
    kind : {"refused", "unused", "repaired"}
        Whether these rows are refused because something is wrong with them; are left out because nothing needs them;
        or are kept, mended.
    column : str
        The column of MIMIC-III, in lower case; ``""`` for the row as a whole.
    source : str
        The hospital's name of it.
    words : str
        What holds, without a value.
    rows : int
        How many.
    first : tuple of int
        The first of them, counted from 1 after the header.
    """

    kind: Literal["refused", "unused", "repaired"]
    column: str
    source: str
    words: str
    rows: int = Field(ge=0)
    first: tuple[int, ...] = Field(default=(), max_length=FIRST_ROWS)


_KINDS = {"refused": "refused", "unused": "left out", "repaired": "mended"}


def finding_in_words(finding: Finding, table: TableTally) -> str:
    """Return a finding as a sentence, without a value."""
    column = f"{table.name}.{finding.column.upper()} " if finding.column else "the line "
    source = f"(their {finding.source}) " if finding.source and finding.source.lower() != finding.column else ""
    first = ", ".join(f"{row:,}" for row in finding.first)
    more = ", ..." if finding.rows > len(finding.first) else ""
    rows = f"{finding.rows:,} row{'s' if finding.rows > 1 else ''} of {table.label}"
    return f"{rows} {_KINDS[finding.kind]}: {column}{source}{finding.words} (row {first}{more})"


class ColumnTally(Section):
    """One column of the record.

    Attributes
    ----------
    name, type : str
        As in MIMIC-III.
    source : str
        The hospital's column; ``""`` for a constant or a column that is not there.
    rule : str
        How it is converted, in words; ``""`` if it is taken as it is.
    filled, empty : int
        Rows of the record with and without a value.
    converted : int
        Rows whose text was changed.
    """

    name: str
    type: str
    source: str
    rule: str = ""
    filled: int = 0
    empty: int = 0
    converted: int = 0


class TableTally(Section):
    """One table.

    Attributes
    ----------
    name, label : str
        MIMIC-III's name, and what the hospital calls it.
    digest : str
        SHA-256 of what was read.
    read, kept : int
        Rows of the source and of the record.
    columns : tuple of ColumnTally
        By MIMIC-III's order.
    findings : tuple of Finding
        Refused rows first.
    """

    name: str
    label: str
    digest: str
    read: int = 0
    kept: int = 0
    columns: tuple[ColumnTally, ...] = ()
    findings: tuple[Finding, ...] = ()

    def count(self, kind: Literal["refused", "unused", "repaired"]) -> int:
        """Return how many rows were refused, left out or repaired."""
        return sum(finding.rows for finding in self.findings if finding.kind == kind)


class Tally(Section):
    """All tables; those without a source are named in ``missing``."""

    source: str
    tables: tuple[TableTally, ...]
    missing: tuple[str, ...] = ()

    def unfit(self, refused_share: float) -> tuple[TableTally, ...]:
        """Return the tables of which a larger share of rows was refused."""
        return tuple(table for table in self.tables if table.count("refused") > refused_share * table.read)

    @property
    def refused(self) -> int:
        """Rows that were refused, of all tables."""
        return sum(table.count("refused") for table in self.tables)
