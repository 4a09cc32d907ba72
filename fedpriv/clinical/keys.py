"""A key stands once: rows that repeat another are left out, rows that contradict each other are refused."""

from __future__ import annotations

from pathlib import Path

import duckdb

from fedpriv.clinical.schema import TableSpec

REPEATED = "repeats another row to the letter"
CONTRADICTED = "is the key of another row, which says otherwise"


def settle_key(
    connection: duckdb.DuckDBPyConnection, spec: TableSpec, path: Path, *, repeated: int, other: int
) -> None:
    """Mark the rows of a small table whose key stands twice.

    Parameters
    ----------
    path : Path
        The table as Parquet; it is written again.
    repeated, other : int
        What becomes the ``problem`` of a row that repeats an earlier one, and of rows that contradict each other: of
        these none is kept, since nobody can say which is right.
    """
    names = ", ".join(column.name for column in spec.needed)
    place, new = (str(p).replace("'", "''") for p in (path, path.with_suffix(".new")))
    connection.execute(
        f"""COPY (
            SELECT * EXCLUDE (same, least, most, earliest, digest) REPLACE (CAST(CASE
                WHEN problem IS NOT NULL THEN problem
                WHEN same > 1 AND least <> most THEN {other}
                WHEN same > 1 AND row <> earliest THEN {repeated} END AS SMALLINT) AS problem)
            FROM (SELECT *, count(*) OVER rows_of_key AS same, min(digest) OVER rows_of_key AS least,
                         max(digest) OVER rows_of_key AS most, min(row) OVER rows_of_key AS earliest
                  FROM (SELECT *, hash(ROW({names})) AS digest FROM read_parquet('{place}'))
                  WINDOW rows_of_key AS (PARTITION BY {spec.key}, problem IS NULL))
            ORDER BY row) TO '{new}' (FORMAT parquet, COMPRESSION zstd)"""  # noqa: S608 (names from schema.py)
    )
    path.with_suffix(".new").rename(path)
