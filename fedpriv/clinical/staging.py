"""Folders that appear whole or not at all, and csv.gz files whose bytes depend on their rows only."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from fedpriv.errors import DataError, ExistsError
from fedpriv.files import PRIVATE_FILE, PRIVATE_FOLDER, sync_folder


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Give a private temporary folder whose files are moved to ``target`` when the block ends well.

    Parameters
    ----------
    target : Path
        The folder to make; it may be there already if it is empty, and then it is kept and filled.

    Yields
    ------
    Path
        The temporary folder (0700); it is removed if the block raises.

    Raises
    ------
    ExistsError
        If ``target`` is a file or holds anything.
    DataError
        If it cannot be written.
    """
    target = target.absolute()
    present = _is_empty_folder(target)
    temporary = (target if present else target.parent) / f".{target.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, mode=PRIVATE_FOLDER)
        yield temporary
        _publish(temporary, target, present=present)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror or type(error).__name__})",
            kept="What was there before is unchanged",
            todo="check the disk and the permissions, or choose another folder",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_empty_folder(target: Path) -> bool:
    """Return whether ``target`` is there and empty; raise ExistsError if it is there and is not."""
    try:
        present = target.exists()
        if present and (not target.is_dir() or any(target.iterdir())):
            raise ExistsError(
                f"{target} is there already and is not an empty folder",
                kept="It was left as it is",
                todo="choose another folder, or empty this one first",
            )
    except OSError as error:
        raise DataError(f"{target} cannot be read ({error.strerror})", todo="check its permissions") from error
    return present


def _publish(temporary: Path, target: Path, *, present: bool) -> None:
    sync_folder(temporary)
    if present:
        for entry in sorted(temporary.iterdir()):
            entry.rename(target / entry.name)
        sync_folder(target)
    else:
        temporary.rename(target)
        sync_folder(target.parent)


class CsvGz:
    """A csv.gz table that is written row by row, readable by its owner only; a context manager.

    None becomes an empty field. The gzip header names no file and no time, so the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        The file.
    columns : sequence of str
        The header.
    delimiter : str
        What stands between fields.
    level : int
        gzip's, 0 to 9.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, delimiter: str = ",", level: int = 6) -> None:
        self.count = 0
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(
                os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE), "wb")
            )
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=raw, mtime=0)
            text = stack.enter_context(io.TextIOWrapper(stack.enter_context(packed), encoding="utf-8", newline=""))
            self._writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
            self._writer.writerow(columns)
            self._open = stack.pop_all()

    def write(self, row: Sequence[object]) -> None:
        """Add one row."""
        self._writer.writerow(row)
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def write_csv_gz(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> int:
    """Write ``rows`` as a :class:`CsvGz`, and return how many there were."""
    with CsvGz(path, columns, delimiter=delimiter) as table:
        for row in rows:
            table.write(row)
    return table.count
