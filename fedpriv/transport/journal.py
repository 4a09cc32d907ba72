"""Small facts that must survive a kill, a power cut, and a second process of the same party: an SQLite file."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedpriv.errors import ConfigError
from fedpriv.files import PRIVATE_FILE, private_folder

_BUSY_SECONDS = 30.0
_ERRORS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS, sqlite3.SQLITE_BUSY: errno.EAGAIN}
_COUNT = "INSERT INTO facts VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value"

_RAISE = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"


class Journal:
    """Named numbers and words.

    *Guarantee*: what was set is there after any kill, all of one call or nothing; no two callers get the same number of
    :meth:`count`, whatever process they are in. The cost of a change does not grow with the number of facts.
    *Assumption*: its folder is used by one machine at a time.

    Parameters
    ----------
    path : Path
        The file, made if it is missing (0600).

    Raises
    ------
    ConfigError
        If it is not such a file.
    """

    def __init__(self, path: Path) -> None:
        private_folder(path.parent)
        self._lock = threading.Lock()
        path.touch(mode=PRIVATE_FILE)  # SQLite's own files beside it take its mode
        try:
            self._facts = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._facts.execute("PRAGMA journal_mode=WAL")  # one flush a change
            self._facts.execute("PRAGMA synchronous=FULL")
            self._facts.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        except sqlite3.OperationalError as error:  # a full disk, say: what it holds is whole, and is not to be lost
            raise ConfigError(
                f"The journal {path} cannot be opened ({error})",
                kept="What it holds was not changed",
                todo="leave it where it is; make room on its disk, and see that its owner may write there",
            ) from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"The journal {path} cannot be used ({error})",
                kept="Nothing was changed",
                todo="move it away and start again: the store tells what it held, and some messages are read twice",
            ) from error

    def number(self, name: str) -> int:
        """Return a number, 0 if it was never set. Raises as :meth:`set`."""
        with _os_errors():
            found = self._facts.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def words(self, prefix: str) -> dict[str, str]:
        """Return the words whose names begin with ``prefix``, by the rest of their names. Raises as :meth:`set`."""
        with _os_errors():
            found = self._facts.execute(
                "SELECT name, value FROM facts WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            ).fetchall()
        return {str(name)[len(prefix) :]: str(value) for name, value in found}

    def set(self, facts: Mapping[str, int | str]) -> None:
        """Set several facts at once.

        Raises
        ------
        OSError
            If the disk does not take them, or cannot be read.
        """
        with self._changing(), self._facts:  # commits, or takes everything back
            self._facts.execute("BEGIN IMMEDIATE")
            self._facts.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    def forget(self, names: Iterable[str]) -> None:
        """Forget several facts at once; those that are not there are no error. Raises as :meth:`set`."""
        with self._changing(), self._facts:
            self._facts.execute("BEGIN IMMEDIATE")
            self._facts.executemany("DELETE FROM facts WHERE name = ?", [(name,) for name in names])

    def count(self, name: str) -> int:
        """Add one to a number and return it: nobody else gets the same. Raises as :meth:`set`."""
        with self._changing():
            return int(self._facts.execute(_COUNT, (name,)).fetchall()[0][0])

    def raise_to(self, name: str, least: int) -> None:
        """Make a number at least so large, whatever others make of it at the same time. Raises as :meth:`set`."""
        with self._changing():
            self._facts.execute(_RAISE, (name, least)).fetchall()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one thread at a time change something."""
        with self._lock, _os_errors():
            yield


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Have what SQLite cannot read or write said as of any other file: it is waited for."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = _ERRORS.get(error.sqlite_errorcode & 0xFF, errno.EIO)
        raise OSError(number, os.strerror(number)) from error
