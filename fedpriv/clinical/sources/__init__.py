"""Where a hospital's tables are: a folder of CSV or Parquet files, a DuckDB file, a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from fedpriv.clinical.sources.duckdb_file import DuckdbSource
from fedpriv.clinical.sources.folder import FolderSource
from fedpriv.clinical.sources.postgres import PostgresSource, is_postgres
from fedpriv.clinical.sources.table import Source, SourceTable

__all__ = ["Source", "SourceTable", "open_source"]


def open_source(location: str) -> Source:
    """Return the source at ``location``.

    Parameters
    ----------
    location : str
        A folder, a ``.duckdb`` or ``.db`` file, or ``postgresql://user@host:port/database``, without a password.

    Raises
    ------
    DataError
        If it cannot be opened.
    """
    if is_postgres(location):
        return PostgresSource(location)
    path = Path(location).expanduser()
    return DuckdbSource(path) if path.is_file() else FolderSource(path)
