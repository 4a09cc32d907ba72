"""The common record: a hospital's tables as MIMIC-III has them, checked, in one private folder of Parquet files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
from pydantic import Field, ValidationError

from fedpriv.clinical.duckdb_words import in_our_words
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.tally import Tally
from fedpriv.errors import DataError, UntrustedError
from fedpriv.files import file_sha256, read_json
from fedpriv.study.section import Section

RECORD_VERSION = 1
MANIFEST_FILE = "record.json"
MEMORY_LIMIT = "1500MB"
"""Of duckdb. Beyond it sorting and joining go to files in the private folder, and are gone afterwards."""

_FETCH_ROWS = 2000


class RecordManifest(Section):
    """What a record is made of.

    Attributes
    ----------
    version : int
        Of this format.
    digest : str
        SHA-256 over what went in: the sources' bytes, the mapping, the rules.
    buckets : dict of str to int
        Into how many parts, by patients, each large table is divided.
    files : dict of str to str
        SHA-256 of each file, by its path in the folder.
    tally : Tally
        What harmonising found.
    """

    version: int
    digest: str
    buckets: dict[str, int]
    files: dict[str, str] = Field(min_length=1)
    tally: Tally


class RecordTables:
    """Tables of a record in SQL, lower-case names and typed columns; a context manager.

    A table that the hospital does not have is there and empty.
    """

    def __init__(self, folder: Path, manifest: RecordManifest, *, bucket: tuple[int, int] | None = None) -> None:
        self.tally = manifest.tally
        self._folder, self._manifest = folder, manifest
        self._there = {table.name for table in manifest.tally.tables}
        self._connection = connect(folder)
        for spec in SPECS.values():
            columns = ", ".join(column.name for column in spec.needed)
            if spec.name not in self._there:
                empty = ", ".join(f"NULL::{column.type} AS {column.name}" for column in spec.needed)
                self._connection.execute(f"CREATE VIEW {spec.table} AS SELECT {empty} LIMIT 0")
                continue
            where = "problem IS NULL"
            if bucket is not None and spec.of_patients:
                where += f" AND abs(subject_id) % {bucket[1]} = {bucket[0]}"
            self._connection.execute(
                f"CREATE VIEW {spec.table} AS SELECT {columns} FROM {self._place(spec.name, bucket)} WHERE {where}"  # noqa: S608
            )

    def _place(self, name: str, bucket: tuple[int, int] | None) -> str:
        parts = self._manifest.buckets.get(name)
        if parts is None:
            path = str(self._folder / f"{name}.parquet")
        elif bucket is None:
            path = str(self._folder / name / "*" / "*.parquet")
        else:
            folder = self._folder / name / f"bucket={bucket[0] % parts}"
            path = str((folder if folder.is_dir() else self._folder / name / "*") / "*.parquet")
        return f"read_parquet('{path.replace(chr(39), chr(39) * 2)}', hive_partitioning = false)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    def has(self, name: str) -> bool:
        """Return whether the hospital has the table ``name`` (as in the release, upper case)."""
        return name in self._there

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        with in_our_words(self._folder):
            return self._connection.execute(sql, parameters or {}).fetchall()

    def stream(self, sql: str, parameters: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """Run a query and give its rows a batch at a time."""
        with self._connection.cursor() as cursor:
            yield from in_batches(cursor, self._folder, sql, parameters or {})

    def label(self, name: str) -> str:
        """Return what the hospital calls the table ``name``."""
        return next((table.label for table in self.tally.tables if table.name == name), "")

    def count(self, name: str) -> int:
        """Return how many rows the hospital's table has; 0 if it is not there."""
        return next((table.read for table in self.tally.tables if table.name == name), 0)


class Record:
    """A harmonised record on disk.

    Parameters
    ----------
    folder : Path
        Its folder.
    manifest : RecordManifest
        What is in it.
    """

    def __init__(self, folder: Path, manifest: RecordManifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(cls, folder: Path) -> Record:
        """Check a record against its manifest, file by file, and return it.

        Raises
        ------
        DataError
            If a file is missing, damaged or changed.
        """
        try:
            manifest = RecordManifest.model_validate_json(_text(folder / MANIFEST_FILE))
        except ValidationError as error:
            raise DataError(f"{folder} holds no record of this version", todo="prepare the data again") from error
        for name, digest in manifest.files.items():
            path = folder / name
            if not path.is_file() or file_sha256(path) != digest:
                raise DataError(
                    f"{path} is not what its manifest says: it was damaged, changed or removed",
                    kept="It was not used",
                    todo=f"delete the folder {folder} and prepare the data again",
                )
        return cls(folder, manifest)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the record was made of."""
        return self.manifest.digest

    @property
    def tally(self) -> Tally:
        """What harmonising found."""
        return self.manifest.tally

    @property
    def bucket_count(self) -> int:
        """Into how many parts, by patients, it can be read one after the other."""
        return max((1, *self.manifest.buckets.values()))

    def tables(self) -> RecordTables:
        """Return all tables."""
        return RecordTables(self.folder, self.manifest)

    def bucket(self, number: int) -> RecordTables:
        """Return the tables of one part's patients, from 0 to ``bucket_count - 1``; dictionaries are whole."""
        return RecordTables(self.folder, self.manifest, bucket=(number, self.bucket_count))


def connect(spill: Path, *, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection in memory that fetches nothing from the network and spills into ``spill`` only."""
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": str(spill / ".spill"),
        "memory_limit": MEMORY_LIMIT,
    }
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET enable_progress_bar = true")  # so that it can be asked how far it is
    connection.execute("SET enable_progress_bar_print = false")  # it would write on our standard output
    return connection


def in_batches(
    connection: duckdb.DuckDBPyConnection, label: object, sql: str, parameters: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Run a query and give its rows a batch at a time; errors name ``label``."""
    with in_our_words(label):
        connection.execute(sql, parameters)
    while True:
        with in_our_words(label):
            batch = connection.fetchmany(_FETCH_ROWS)
        if not batch:
            return
        yield from batch


def _text(path: Path) -> str:
    import json

    problem = "it is not a manifest"
    with contextlib.suppress(UntrustedError):
        try:
            return json.dumps(read_json(path))
        except OSError as error:
            problem = error.strerror or "it cannot be opened"
    raise DataError(f"{path} cannot be read ({problem})", todo="prepare the data again")


def all_columns(name: str) -> Sequence[str]:
    """Return the columns of a table of the record."""
    return [column.name for column in SPECS[name].needed]
