"""A folder with tables as CSV, csv.gz or Parquet files."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import duckdb

from fedpriv.clinical.sources.table import Progress, SourceTable, once, quoted, unreadable
from fedpriv.errors import DataError

MAX_LINE_BYTES = 32 * 2**20
"""A row may be so long; a note of 10 MB is read and cut, see :mod:`fedpriv.clinical.schema`."""

REJECTS_LIMIT = 10_000
"""A CSV file with more broken lines than these is none."""

_MAX_HEADER_BYTES = 64 * 1024
_CHUNK_BYTES = 4 * 2**20
_ENDINGS = r"\.(csv|csv\.gz|parquet)$"
_SCAN_CSV = f"""read_csv($path, columns = $fields, header = true, auto_detect = false, delim = $delimiter, quote = '"',
    escape = '"', nullstr = '', max_line_size = {MAX_LINE_BYTES}, buffer_size = {2 * MAX_LINE_BYTES},
    store_rejects = true, rejects_limit = {REJECTS_LIMIT})"""


class FolderSource:
    """The files of one folder. They are only read."""

    attach: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.location = str(self._folder)
        if set(self.location) & set("*?[]"):
            raise DataError(f"{self.location} has one of * ? [ ] in its path", todo="rename the folder, or link to it")
        try:
            next(self._folder.iterdir(), None)
        except PermissionError as error:
            raise DataError(
                f"The folder {self.location} cannot be read ({error.strerror})",
                todo="let this user read it, and no more than read",
            ) from error
        except OSError as error:
            raise DataError(
                f"The folder {self.location} cannot be read ({error.strerror})",
                todo="give the folder with the MIMIC-III tables",
            ) from error

    def names(self) -> Sequence[str]:
        """Return the paths of the table files below the folder."""
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return sorted(
            path.relative_to(self._folder).as_posix() for path in files if re.search(_ENDINGS, path.name, re.IGNORECASE)
        )

    def find(self, table: str) -> str | None:
        """Return the file of ``table``, such as ``noteevents.csv.gz``."""
        found = [name for name in self.names() if re.sub(_ENDINGS, "", name, flags=re.IGNORECASE).upper() == table]
        return once(table, found, self.location)

    def open(self, name: str, *, delimiter: str, scratch: Path, on_progress: Progress) -> SourceTable:
        """Read the whole file once to check it, and return it."""
        del scratch
        path = self._folder / name
        if not path.is_file():
            raise DataError(f"{self.location} has no file {name}", kept="Nothing was written", todo="put it there")
        if path.suffix.lower() == ".parquet":
            return _open_parquet(path, on_progress)
        return open_csv(path, label=name, delimiter=delimiter, on_progress=on_progress)


def open_csv(path: Path, *, label: str, delimiter: str, on_progress: Progress) -> SourceTable:
    """Check a CSV or csv.gz file (length, CRC, quotes) and return it as a table.

    Raises
    ------
    DataError
        If it is cut off, changed, not a gzip file, or has no header.
    """
    columns = read_header(path, label=label, delimiter=delimiter)
    digest, size, quotes = hashlib.sha256(), 0, 0
    whole = path.stat().st_size or 1
    with _in_our_words(label), path.open("rb") as raw, _unpacked(path, raw) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            quotes += chunk.count(b'"')
            on_progress(raw.tell() / whole)
    return SourceTable(
        label=label,
        columns=columns,
        relation=_SCAN_CSV,
        parameters={
            "path": str(path),
            "fields": {f"f{place}": "VARCHAR" for place in range(len(columns))},
            "delimiter": delimiter,
        },
        digest=digest.hexdigest(),
        size_bytes=size,
        is_csv=True,
        ends_within_quotes=quotes % 2 == 1,
    )


def read_header(path: Path, *, label: str, delimiter: str = ",") -> tuple[str, ...]:
    """Return the names in the first line of a CSV or csv.gz file.

    Raises
    ------
    DataError
        If it cannot be read or has no header.
    """
    with _in_our_words(label), path.open("rb") as raw, _unpacked(path, raw) as stream:
        line = stream.readline(_MAX_HEADER_BYTES).decode("utf-8-sig")
    if not line.strip():
        raise unreadable(label, "it has no header")
    return tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))


def _unpacked(path: Path, raw: BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    if path.suffix.lower() == ".gz":
        return contextlib.closing(io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"), _CHUNK_BYTES))  # type: ignore[arg-type, return-value]
    return contextlib.nullcontext(raw)


def _open_parquet(path: Path, on_progress: Progress) -> SourceTable:
    digest = hashlib.sha256()
    whole, done = path.stat().st_size or 1, 0
    with _in_our_words(path.name), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            on_progress(done / whole)
    try:
        with duckdb.connect(":memory:") as connection:
            told = connection.execute("SELECT * FROM read_parquet($path) LIMIT 0", {"path": str(path)}).description
    except duckdb.Error:
        raise unreadable(path.name, "it is cut off, damaged, or not a Parquet file") from None
    columns = tuple(str(column[0]) for column in told)
    fields = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS f{place}" for place, name in enumerate(columns))
    return SourceTable(
        label=path.name,
        columns=columns,
        relation=f"(SELECT {fields} FROM read_parquet($path))",  # noqa: S608 (quoted identifiers)
        parameters={"path": str(path)},
        digest=digest.hexdigest(),
        size_bytes=4 * whole,
    )


@contextlib.contextmanager
def _in_our_words(label: str) -> Iterator[None]:
    """Turn an error of reading into a DataError that names the file."""
    try:
        yield
    except UnicodeDecodeError:
        raise unreadable(label, "its header is not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise unreadable(label, "it is cut off, damaged, or not a gzip file") from None
    except OSError as error:
        raise unreadable(label, error.strerror or "it cannot be opened") from error
