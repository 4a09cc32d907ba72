"""MIMIC-III tables, or those of a mapping, harmonised for as long as they are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from fedpriv.clinical.harmonize import REFUSED_SHARE, Progress, harmonize, silent
from fedpriv.clinical.mapping import SchemaMapping
from fedpriv.clinical.record import RecordTables, all_columns, connect, in_batches
from fedpriv.clinical.sources import open_source
from fedpriv.clinical.sources.table import SourceTable
from fedpriv.scratch import scratch_folder


class ClinicalTables(RecordTables):
    """The record of a hospital's tables in a private temporary folder, and its rows as they were found.

    A context manager; what it made is removed when it is closed.
    """

    @classmethod
    def open(
        cls,
        location: Path | str,
        mapping: SchemaMapping | None = None,
        *,
        refused_share: float | None = REFUSED_SHARE,
        on_progress: Progress = silent,
    ) -> ClinicalTables:
        """Read and check the tables at ``location``; see :func:`fedpriv.clinical.harmonize.harmonize`.

        Raises
        ------
        DataError
            If a table or a column is missing, a file is damaged, or rows are refused.
        """
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(scratch_folder("tables"))
            record = harmonize(
                str(location), home, mapping=mapping, refused_share=refused_share, on_progress=on_progress
            )
            tables = cls(record.folder, record.manifest)
            tables._home, tables._location, tables._mapping = home, str(location), mapping
            tables._made = stack.pop_all()
        return tables

    _made: contextlib.ExitStack
    _home: Path
    _location: str
    _mapping: SchemaMapping | None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was made; the tables are untouched."""
        super().close()
        self._made.close()

    def source_columns(self, name: str) -> tuple[str, ...]:
        """Return the columns of :meth:`raw_rows`: as found, or of a mapped table MIMIC-III's in upper case."""
        if self._mapping is not None:
            return tuple(column.upper() for column in all_columns(name))
        return self._source(name).columns

    def raw_rows(self, name: str, subject_ids: Sequence[int] | None = None) -> Iterator[tuple[str | None, ...]]:
        """Give the rows of a table as text, with all columns, in their order; a mapped one's as MIMIC-III has them.

        Parameters
        ----------
        name : str
            The table, as in the release.
        subject_ids : sequence of int, optional
            Only these patients' rows; without it, all.

        Raises
        ------
        DataError
            If the table is damaged.
        """
        subjects = {} if subject_ids is None else {"subjects": list(subject_ids)}
        if self._mapping is not None:
            fields = ", ".join(f"CAST({column} AS VARCHAR)" for column in all_columns(name))
            where = " WHERE subject_id IN (SELECT unnest($subjects::BIGINT[]))" if subjects else ""
            yield from self.stream(f"SELECT {fields} FROM {name.lower()}{where}", subjects)  # noqa: S608
            return
        table = self._source(name)
        sql = f"SELECT * FROM {table.relation}"  # noqa: S608 (numbered fields)
        if subjects:
            place = [column.lower() for column in table.columns].index("subject_id")
            sql += f" WHERE TRY_CAST(f{place} AS BIGINT) IN (SELECT unnest($subjects::BIGINT[]))"
        with connect(self._home) as connection:
            yield from in_batches(connection, table.label, sql, {**table.parameters, **subjects})

    def _source(self, name: str) -> SourceTable:
        source = open_source(self._location)
        place = source.find(name)
        return source.open(place or name, delimiter=",", scratch=self._home, on_progress=lambda _done: None)
