"""MIMIC-III tables, the full release or the demo, read from CSV or csv.gz with duckdb.

No message here holds a value of the data: duckdb's own messages quote rows, so none of them is passed on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from fedpriv.clinical.mapped_files import MappedFile, map_files
from fedpriv.clinical.mapping import SchemaMapping
from fedpriv.clinical.schema import NEEDED_TABLES, OPTIONAL_TABLES, SPECS, Column, TableSpec
from fedpriv.clinical.table_files import TableFile, check_gzip, find_files, unreadable
from fedpriv.errors import DataError

_FETCH_ROWS = 2000
_PATIENTS_ROWS = "SELECT * FROM {rows} WHERE TRY_CAST(subject_id AS BIGINT) IN (SELECT unnest($subjects::BIGINT[]))"
_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": False,  # nothing is fetched from the network
    "autoload_known_extensions": False,
    "temp_directory": "",  # rows are never spilled to disk
}


class ClinicalTables:
    """The MIMIC-III tables of one folder; a context manager.

    Patients, admissions, ICU stays and diagnoses are read and checked by :meth:`open`; titles, prescriptions and
    notes by :meth:`load_details`, as a full release's take a while.
    """

    def __init__(self, folder: Path, files: dict[str, TableFile]) -> None:
        self.folder = folder
        self.files = files
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        self._detailed = False
        self._whole: set[str] = set()

    @classmethod
    def open(cls, folder: Path, mapping: SchemaMapping | None = None) -> ClinicalTables:
        """Find, read and check the tables in ``folder``.

        Parameters
        ----------
        folder : Path
            Folder with ``ADMISSIONS.csv.gz`` and so on; file names and headers in upper or lower case.
        mapping : SchemaMapping, optional
            How tables of another schema become these; without it they are MIMIC-III as they are.

        Raises
        ------
        DataError
            If the folder, a needed table or a needed column is missing, a file is damaged, a value is not of its
            column's type or cannot be converted, a key stands twice, or tables do not belong together.
        """
        tables = cls(folder, find_files(folder) if mapping is None else map_files(folder, mapping))
        try:
            for name in NEEDED_TABLES:
                tables._load(SPECS[name])
            for name in ("ADMISSIONS", "ICUSTAYS"):
                tables._check_patients_known(name)
        except BaseException:
            tables.close()
            raise
        return tables

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was read; the files are untouched."""
        self._connection.close()

    def has(self, name: str) -> bool:
        """Return whether the table ``name`` (as in the release, upper case) has a file."""
        return name in self.files

    def load_details(self) -> None:
        """Read titles, prescriptions and discharge summaries; a table without a file is empty."""
        if not self._detailed:
            for name in OPTIONAL_TABLES:
                self._load(SPECS[name])
            self._detailed = True

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query on the loaded tables (lower-case names, typed columns) and return its rows."""
        with _in_our_words(self.folder):
            return self._connection.execute(sql, parameters or {}).fetchall()

    def stream(self, sql: str, parameters: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """Run a query on the loaded tables and give its rows a batch at a time; one stream at a time."""
        yield from self._fetch(self.folder, sql, parameters or {})

    def count(self, name: str) -> int:
        """Return the number of rows in the file of table ``name``; 0 if it has none."""
        if not self.has(name):
            return 0
        return next(self._scan(name, "SELECT count(*) FROM {rows}"))[0]

    def raw_rows(self, name: str, subject_ids: Sequence[int] | None = None) -> Iterator[tuple[str | None, ...]]:
        """Give the rows of a file as text, in the file's order; those of a mapped one as MIMIC-III has them.

        Parameters
        ----------
        name : str
            The table, as in the release.
        subject_ids : sequence of int, optional
            Only these patients' rows; without it, all.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        width = len(self.files[name].columns)
        sql, parameters = "SELECT * FROM {rows}", {}
        if subject_ids is not None:
            sql, parameters = _PATIENTS_ROWS, {"subjects": list(subject_ids)}
        return (row[:width] for row in self._scan(name, sql, parameters))

    def _scan(self, name: str, sql: str, extra: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        file = self._checked(name)
        yield from self._fetch(file.path, sql.format(rows=file.relation), {**file.parameters, **(extra or {})})

    def _checked(self, name: str) -> TableFile:
        """Return a table's file, after its checksum was verified once, and that a mapped one can be converted."""
        file = self.files[name]
        if name not in self._whole:
            check_gzip(file.path)
            if isinstance(file, MappedFile):
                file.refuse_bad(next(self._fetch(file.path, file.check_sql, file.parameters)))
            self._whole.add(name)
        return file

    def _fetch(self, path: Path, sql: str, parameters: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            with _in_our_words(path):
                cursor.execute(sql, parameters)
            while True:
                with _in_our_words(path):
                    batch = cursor.fetchmany(_FETCH_ROWS)
                if not batch:
                    return
                yield from batch

    def _load(self, spec: TableSpec) -> None:
        """Read the needed columns of one table as text, check that each can be cast, and keep them typed."""
        typed = ", ".join(f"TRY_CAST({column.name} AS {column.type}) AS {column.name}" for column in spec.needed)
        names = ", ".join(column.name for column in spec.needed)
        if spec.name in self.files:
            where = f" WHERE {spec.only}" if spec.only else ""
            file = self._checked(spec.name)
            sql = f"CREATE OR REPLACE TEMP TABLE raw AS SELECT {names} FROM {file.relation}{where}"  # noqa: S608
            with _in_our_words(file.path):
                self._connection.execute(sql, file.parameters)
        else:
            empty = ", ".join(f"NULL::VARCHAR AS {column.name}" for column in spec.needed)
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE raw AS SELECT {empty} LIMIT 0")
        self._check_values(spec)
        self._connection.execute(f"CREATE OR REPLACE TABLE {spec.table} AS SELECT {typed} FROM raw")  # noqa: S608
        self._connection.execute("DROP TABLE raw")
        self._check_key(spec)

    def _check_values(self, spec: TableSpec) -> None:
        counted = ", ".join(_bad_values(column) for column in spec.needed)
        counts = self.rows(f"SELECT {counted} FROM raw")[0]  # noqa: S608
        for column, bad in zip(spec.needed, counts, strict=True):
            if bad:
                what = {"BIGINT": "whole numbers", "DOUBLE": "numbers", "TIMESTAMP": "times", "VARCHAR": "text"}
                raise DataError(
                    f"{spec.name}: column {column.name.upper()} has {bad} row(s) that are not {what[column.type]}"
                    + (" or are empty" if column.filled else ""),
                    kept="Nothing was written",
                    todo="compare the file with the MIMIC-III release and copy it again",
                )

    def _check_key(self, spec: TableSpec) -> None:
        if not spec.key:
            return
        repeated = self.rows(f"SELECT count(*) - count(DISTINCT {spec.key}) FROM {spec.table}")[0][0]  # noqa: S608
        if repeated:
            raise DataError(
                f"{spec.name}: {repeated} row(s) repeat a {spec.key.upper()} that must stand once",
                kept="Nothing was written",
                todo="remove the repeated rows",
            )

    def _check_patients_known(self, name: str) -> None:
        table = SPECS[name].table
        sql = f"SELECT count(DISTINCT subject_id) FROM {table} ANTI JOIN patients USING (subject_id)"  # noqa: S608
        unknown = self.rows(sql)[0][0]
        if unknown:
            raise DataError(
                f"{name} names {unknown} patient(s) that PATIENTS does not have",
                kept="Nothing was written",
                todo="take all tables from the same release or shard",
            )


def _bad_values(column: Column) -> str:
    uncast = f"{column.name} IS NOT NULL AND TRY_CAST({column.name} AS {column.type}) IS NULL"
    bad = f"({uncast}) OR {column.name} IS NULL" if column.filled else uncast
    return f"count(*) FILTER (WHERE {bad})"


def _without_values(message: str) -> str:
    """Return what is wrong without the row that duckdb quotes."""
    if "GZIP stream" in message:
        return "it is cut off, damaged, or not a gzip file"
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"line {line[1]}" if line else "a line"
    for mark, reason in (
        ("unicode", "is not UTF-8 text"),
        ("unterminated quote", "has a quote that is not closed"),
        ("Expected Number of Columns", "has another number of fields than the header"),
        ("Maximum line size", "is longer than 2 MB"),
    ):
        if mark in message:
            return f"{where} {reason}"
    if "Out of Memory" in message:
        return "there is not enough memory to read it"
    return f"{where} is not CSV"


@contextlib.contextmanager
def _in_our_words(path: Path) -> Iterator[None]:
    """Turn an error of duckdb into a DataError that names ``path`` and quotes no row."""
    try:
        yield
    except duckdb.Error as error:
        raise unreadable(path, _without_values(str(error))) from None
