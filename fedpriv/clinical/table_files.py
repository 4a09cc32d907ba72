"""The files of the tables: found by name whatever its case, headers checked, nothing else read."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpriv.clinical.schema import NEEDED_TABLES, SPECS, TableSpec
from fedpriv.errors import DataError

_MAX_HEADER_BYTES = 64 * 1024
_CHUNK_BYTES = 2**20
_SCAN = """read_csv($path, columns = $columns, header = true, auto_detect = false,
    delim = ',', quote = '"', escape = '"', nullstr = '')"""


@dataclass(frozen=True)
class TableFile:
    """One table's file.

    Attributes
    ----------
    path : Path
        The CSV or csv.gz file.
    columns : tuple of str
        The header as found.
    lacking : tuple of str
        Columns of MIMIC-III that it does not have and need not have, in lower case.
    """

    path: Path
    columns: tuple[str, ...]
    lacking: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def relation(self) -> str:
        """SQL for its rows, each column as text under its name in lower case."""
        found = {name.lower() for name in self.columns}
        lacking = "".join(f", NULL::VARCHAR AS {name}" for name in self.lacking if name not in found)
        return f"(SELECT *{lacking} FROM {_SCAN})" if lacking else _SCAN  # noqa: S608 (names from schema.py)

    @property
    def parameters(self) -> dict[str, Any]:
        """What :attr:`relation` needs."""
        return {"path": str(self.path), "columns": {name.lower(): "VARCHAR" for name in self.columns}}


def find_files(folder: Path) -> dict[str, TableFile]:
    """Find the tables' files in ``folder`` and check their headers.

    Raises
    ------
    DataError
        If the folder, needed tables (all are named) or a needed column is missing, or a table stands twice.
    """
    folder = folder.absolute()
    entries = list_folder(folder)
    found: dict[str, Path] = {}
    for entry in entries:
        name = re.sub(r"\.csv(\.gz)?$", "", entry.name, flags=re.IGNORECASE).upper()
        if name not in SPECS or name == entry.name.upper() or not entry.is_file():
            continue
        if name in found:
            raise DataError(f"{folder} has {name} twice: {found[name].name} and {entry.name}", todo="keep one of them")
        found[name] = entry
    missing = [name for name in NEEDED_TABLES if name not in found]
    if missing:
        raise DataError(
            f"{folder} has no {', '.join(missing)}",
            kept="Nothing was written",
            todo="put the tables there as NAME.csv or NAME.csv.gz, as PhysioNet publishes them",
        )
    return {name: _table_file(SPECS[name], path) for name, path in found.items()}


def _table_file(spec: TableSpec, path: Path) -> TableFile:
    header = read_header(path)
    there = {name.lower() for name in header}
    lacking = tuple(column.name for column in spec.needed if column.may_lack and column.name not in there)
    file = TableFile(path, header, lacking=lacking)
    _check_columns(spec, file)
    return file


def list_folder(folder: Path) -> list[Path]:
    """Return what is in ``folder``, sorted.

    Raises
    ------
    DataError
        If it cannot be read, or duckdb would read its path as a pattern.
    """
    if set(str(folder)) & set("*?[]"):
        raise DataError(f"{folder} has one of * ? [ ] in its path", todo="rename the folder, or link to it")
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be read ({error.strerror})", todo="give the folder with the MIMIC-III tables"
        ) from error


def check_gzip(path: Path) -> None:
    """Read a gz file once to check its length and CRC, which duckdb does not; other files pass.

    Raises
    ------
    DataError
        If it is cut off, changed, or not a gzip file.
    """
    if path.suffix.lower() == ".gz":
        with _named(path), gzip.open(path, "rb") as stream:
            while stream.read(_CHUNK_BYTES):
                pass


def read_header(path: Path, *, delimiter: str = ",") -> tuple[str, ...]:
    """Return the names in the first line of a CSV or csv.gz file.

    Raises
    ------
    DataError
        If it cannot be read or has no header.
    """
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with _named(path), opener(path, "rb") as stream:
        line = stream.readline(_MAX_HEADER_BYTES).decode("utf-8-sig")
    if not line.strip():
        raise unreadable(path, "it has no header")
    return tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))


def _check_columns(spec: TableSpec, file: TableFile) -> None:
    counts = Counter(name.lower() for name in file.columns)
    found = ", ".join(file.columns[:60])[:2000]
    missing = [column.name.upper() for column in spec.needed if not counts[column.name] and not column.may_lack]
    if missing:
        raise DataError(
            f"{spec.name} has no column {', '.join(missing)}; found: {found}",
            kept="Nothing was written",
            todo=f"check that {file.path.name} is the MIMIC-III table with its header",
        )
    twice = sorted(name.upper() for name, count in counts.items() if count > 1)
    if twice:
        raise DataError(f"{spec.name} has column {', '.join(twice)} twice; found: {found}", todo="remove one of them")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an error of reading into a DataError that names ``path``."""
    try:
        yield
    except UnicodeDecodeError:
        raise unreadable(path, "it is not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise unreadable(path, "it is cut off, damaged, or not a gzip file") from None
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error


def unreadable(path: Path, problem: str) -> DataError:
    """Return the error that ``path`` cannot be read, with the problem in words."""
    return DataError(
        f"{path} cannot be read: {problem}", kept="Nothing was written", todo="copy the file again and check its digest"
    )
