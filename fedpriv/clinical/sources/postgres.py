"""A PostgreSQL database as mimic-code builds it: read in one transaction, through COPY, and never written."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from fedpriv.clinical.sources.folder import open_csv
from fedpriv.clinical.sources.table import Progress, SourceTable, once, unreadable
from fedpriv.errors import DataError
from fedpriv.files import PRIVATE_FILE

if TYPE_CHECKING:
    import psycopg

_RELATIONS = """
    SELECT n.nspname, c.relname, greatest(c.reltuples, 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT c.relispartition AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1, 2"""


def is_postgres(location: str) -> bool:
    """Return whether a location is the address of a PostgreSQL database."""
    return location.startswith(("postgresql://", "postgres://"))


class PostgresSource:
    """The tables of one database.

    The password never stands in the address: PostgreSQL's own ``~/.pgpass``, ``PGPASSWORD`` or a service file has it.
    All tables are read in one transaction, so that they belong together, and are streamed into private compressed
    files: a hospital's database is held open for as short as can be.
    """

    attach: str | None = None

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise DataError(
                "The address of the database holds a password",
                kept="It was not used",
                todo="put the password into ~/.pgpass (0600) and take it out of domain.yaml",
            )
        self.location = address
        self._connection: psycopg.Connection[Any] | None = None
        with self._in_our_words():
            rows = self._session().execute(_RELATIONS).fetchall()
        self._tables = {f"{schema}.{name}": (str(schema), str(name), int(count)) for schema, name, count in rows}

    def _session(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            try:
                import psycopg
            except ImportError:
                raise DataError(
                    "PostgreSQL cannot be read: psycopg is not installed",
                    kept="Nothing was read",
                    todo="install it with `pip install 'fedpriv[postgresql]'`",
                ) from None
            connection = psycopg.connect(self.location, connect_timeout=20, application_name="fedpriv")
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """End the transaction."""
        if self._connection is not None:
            self._connection.close()

    def names(self) -> Sequence[str]:
        """Return ``schema.table`` of all that may be read."""
        return list(self._tables)

    def find(self, table: str) -> str | None:
        """Return the table of this name, in whatever schema of the search path or ``mimiciii``."""
        found = [full for full, (_, name, _) in self._tables.items() if name.upper() == table]
        return once(table, found, "The database")

    def open(self, name: str, *, delimiter: str, scratch: Path, on_progress: Progress) -> SourceTable:
        """Copy a table to ``scratch`` and return it; ``name`` may leave the schema out."""
        del delimiter
        from psycopg import sql

        full = name if name in self._tables else self.find(name.upper())
        if full is None:
            raise DataError(f"The database has no table {name}", kept="Nothing was written", todo="correct the name")
        schema, table, expected = self._tables[full]
        place = sql.Identifier(schema, table)
        with self._in_our_words():
            order = self._key(schema, table)
            query = sql.SQL("COPY (SELECT * FROM {}{}) TO STDOUT (FORMAT csv, HEADER true, ENCODING 'UTF8')").format(
                place,
                sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, order)))
                if order
                else sql.SQL(""),
            )
            path = scratch / f"{table.upper()}.csv.gz"
            self._copy(query, path, lambda rows: on_progress(min(0.8, 0.8 * rows / max(1, expected))))
        return open_csv(path, label=full, delimiter=",", on_progress=lambda done: on_progress(0.8 + 0.2 * done))

    def _copy(self, query: Any, path: Path, on_rows: Any) -> None:
        rows = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with (
            os.fdopen(descriptor, "wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            self._session().cursor() as cursor,
            cursor.copy(query) as copy,
        ):
            for data in copy:  # one row a message
                packed.write(data)
                rows += 1
                if rows % 10_000 == 0:
                    on_rows(rows)

    def _key(self, schema: str, table: str) -> list[str]:
        """Return what to order by, so that the same rows give the same file: the primary key, else ``row_id``."""
        rows = (
            self._session()
            .execute(
                """SELECT a.attname FROM pg_index i
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
               JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s
               ORDER BY array_position(i.indkey::int2[], a.attnum)""",
                (schema, table),
            )
            .fetchall()
        )
        if rows:
            return [str(row[0]) for row in rows]
        found = (
            self._session()
            .execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
                " AND lower(column_name) = 'row_id'",
                (schema, table),
            )
            .fetchall()
        )
        return [str(row[0]) for row in found]

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            import psycopg

            failures: tuple[type[Exception], ...] = (psycopg.Error,)
        except ImportError:
            failures = ()
        try:
            yield
        except failures as error:
            state = getattr(error, "sqlstate", None)
            raise unreadable(
                "The database",
                f"PostgreSQL refused (SQLSTATE {state})" if state else "no connection, or the login was refused",
            ) from None
