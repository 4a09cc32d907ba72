"""A DuckDB database file with the tables in it, in whatever schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from fedpriv.clinical.sources.table import Progress, SourceTable, once, quoted, unreadable
from fedpriv.errors import DataError
from fedpriv.files import file_sha256

_ALIAS = "hospital"


class DuckdbSource:
    """The tables of one database file, which is opened for reading only."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.location = str(self._path)
        self.attach: str | None = f"ATTACH '{str(self._path).replace(chr(39), chr(39) * 2)}' AS {_ALIAS} (READ_ONLY)"
        self._digest = ""
        try:
            with duckdb.connect(str(self._path), read_only=True) as database:
                rows = database.execute(
                    "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal"
                    " UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
                ).fetchall()
        except duckdb.Error:
            raise unreadable(self.location, "it is not a DuckDB database, or a newer or busy one") from None
        self._tables = {f"{schema}.{name}": (str(schema), str(name)) for schema, name in rows}

    def names(self) -> Sequence[str]:
        """Return ``schema.table`` of all tables and views."""
        return list(self._tables)

    def find(self, table: str) -> str | None:
        """Return the table of this name, in whatever schema."""
        return once(table, [full for full, (_, name) in self._tables.items() if name.upper() == table], self.location)

    def open(self, name: str, *, delimiter: str, scratch: Path, on_progress: Progress) -> SourceTable:
        """Return a table; ``name`` may leave the schema out."""
        del delimiter, scratch
        full = name if name in self._tables else self.find(name.upper())
        if full is None:
            raise DataError(f"{self.location} has no table {name}", kept="Nothing was written", todo="correct the name")
        self._digest = self._digest or file_sha256(self._path)
        place = f"{_ALIAS}.{'.'.join(map(quoted, self._tables[full]))}"
        try:
            with duckdb.connect(":memory:") as connection:
                connection.execute(self.attach or "")
                columns = tuple(str(c[0]) for c in connection.execute(f"SELECT * FROM {place} LIMIT 0").description)  # noqa: S608
                rows = connection.execute(f"SELECT count(*) FROM {place}").fetchall()[0][0]  # noqa: S608
        except duckdb.Error:
            raise unreadable(f"{full} in {self._path.name}", "the database is damaged") from None
        on_progress(1.0)
        fields = ", ".join(f"CAST({quoted(column)} AS VARCHAR) AS f{i}" for i, column in enumerate(columns))
        return SourceTable(
            label=f"{full} in {self._path.name}",
            columns=columns,
            relation=f"(SELECT {fields} FROM {place})",  # noqa: S608 (quoted identifiers)
            parameters={},
            digest=self._digest,
            size_bytes=rows * (2048 if "TEXT" in {column.upper() for column in columns} else 128),
        )
