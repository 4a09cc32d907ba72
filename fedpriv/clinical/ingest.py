"""One table of a hospital becomes one table of the common record: converted, checked, repaired, and told.

A row is read once. It is refused for the first thing that is wrong with it, left out where nothing needs it, or kept;
all three are counted, and the first rows of each are named by their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from fedpriv.clinical.conversion import Conversion
from fedpriv.clinical.duckdb_words import in_our_words
from fedpriv.clinical.keys import CONTRADICTED, REPEATED, settle_key
from fedpriv.clinical.schema import TableSpec
from fedpriv.clinical.sources.folder import REJECTS_LIMIT
from fedpriv.clinical.sources.table import SourceTable, unreadable
from fedpriv.clinical.tally import FIRST_ROWS, ColumnTally, Finding, TableTally

_BROKEN = {
    "INVALID ENCODING": "is not UTF-8 text",
    "UNQUOTED VALUE": "has a quote that is not doubled or not closed",
    "TOO MANY COLUMNS": "has more fields than the header",
    "MISSING COLUMNS": "has fewer fields than the header",
    "LINE SIZE OVER MAXIMUM": "is longer than 32 MB",
}
_BELONGS = {
    "patient": (("subject_id", "is of no patient in PATIENTS", "known_patient IS NULL"),),
    "admission": (
        ("hadm_id", "is of no admission in ADMISSIONS", "hadm_id IS NOT NULL AND known_admission IS NULL"),
        ("subject_id", "is another patient's than the admission", "known_admission <> subject_id"),
    ),
    "admission if told": (
        ("subject_id", "is of no patient in PATIENTS", "known_patient IS NULL"),
        ("hadm_id", "is of no admission in ADMISSIONS", "hadm_id IS NOT NULL AND known_admission IS NULL"),
        ("subject_id", "is another patient's than the admission", "known_admission <> subject_id"),
    ),
    "": (),
}


@dataclass(frozen=True)
class _Case:
    """Why a row is not kept, or what is mended in it."""

    kind: Literal["refused", "unused", "repaired"]
    column: str
    words: str
    when: str


@dataclass(frozen=True)
class Ingest:
    """How one table is made.

    Attributes
    ----------
    spec : TableSpec
        What it must be.
    table : SourceTable
        Where it comes from.
    conversions : sequence of Conversion
        One for each column of ``spec``.
    buckets : int
        Into how many parts a large table is divided, by patients.
    """

    spec: TableSpec
    table: SourceTable
    conversions: Sequence[Conversion]
    buckets: int = 1

    def run(self, connection: duckdb.DuckDBPyConnection, target: Path) -> TableTally:
        """Write the table as Parquet and return what was found.

        Parameters
        ----------
        connection : DuckDBPyConnection
            Has ``known_patients (known_patient, born)`` and ``known_admissions (known_admission_id, known_admission)``
            of what was kept before, and ``lab_units``.
        target : Path
            The file, or for a large table the folder, that is written.

        Raises
        ------
        DataError
            If it cannot be read at all.
        """
        refusals, repairs = self._refusals(), self._repairs()
        keyed = len(refusals)
        if self.spec.key:
            refusals += [
                _Case("unused", self.spec.key, REPEATED, ""),
                _Case("refused", self.spec.key, CONTRADICTED, ""),
            ]
        rejects = f"rejects_{self.spec.table}"
        self._forget(connection, rejects)
        noting = f"store_rejects = true, rejects_table = '{rejects}', rejects_scan = '{rejects}_scan'"
        query = self._query(self.table.relation.replace("store_rejects = true", noting), refusals[:keyed], repairs)
        sql = f"COPY ({query}) TO '{_literal(target)}' (FORMAT parquet, COMPRESSION zstd"
        if self.spec.large:
            connection.execute("SET partitioned_write_flush_threshold = 4000")
            sql += ", PARTITION_BY (bucket), WRITE_PARTITION_COLUMNS false, OVERWRITE_OR_IGNORE"
        parameters = {**self.table.parameters, **self._parameters()}
        with in_our_words(self.table.label):
            connection.execute(sql + ")", parameters)
            if self.spec.large and not any(target.glob("*/*.parquet")):  # not a row: still a table, with its columns
                (target / "bucket=-1").mkdir(parents=True, exist_ok=True)
                place = _literal(target / "bucket=-1" / "empty.parquet")
                connection.execute(f"COPY ({query} LIMIT 0) TO '{place}' (FORMAT parquet)", parameters)
            if self.spec.key:
                settle_key(connection, self.spec, target, repeated=keyed, other=keyed + 1)
        broken = self._broken(connection, rejects)
        if self.table.ends_within_quotes and not broken:
            raise unreadable(self.table.label, "it ends within quotes; it is cut off, or a quote is not doubled")
        return self._tally(connection, target, refusals, repairs, broken)

    # -- the query -----------------------------------------------------------------------------------------------

    def _refusals(self) -> list[_Case]:
        """Return why a row may not be kept, in the order of what counts first."""
        checks = [
            _Case("refused", conversion.column.name, check.problem, check.bad)
            for conversion in self.conversions
            for check in conversion.checks
        ]
        unused = [_Case("unused", rule.column, rule.words, rule.when) for rule in self.spec.unused]
        belongs = [_Case("refused", *case) for case in _BELONGS[self.spec.belongs]]
        impossible = [_Case("refused", rule.column, rule.words, rule.when) for rule in self.spec.impossible]
        return [*checks, *unused, *belongs, *impossible]

    def _repairs(self) -> list[_Case]:
        return [_Case("repaired", repair.column, repair.words, repair.when) for repair in self.spec.repairs]

    def _query(self, relation: str, refusals: list[_Case], repairs: list[_Case]) -> str:
        """Return the SQL: number the rows, convert, judge, mend."""
        checks = sum(len(conversion.checks) for conversion in self.conversions)
        text = ", ".join(f"{conversion.sql} AS {conversion.column.name}" for conversion in self.conversions)
        flags = [f"WHEN {case.when} THEN {place}" for place, case in enumerate(refusals[:checks])]
        wrong = f"CASE {' '.join(flags)} END" if flags else "NULL"
        changed = " + ".join(
            f"CASE WHEN {conversion.sql} IS DISTINCT FROM {conversion.field} THEN {1 << place} ELSE 0 END"
            for place, conversion in enumerate(self.conversions)
            if conversion.rule
        )
        typed = ", ".join(f"TRY_CAST({column.name} AS {column.type}) AS {column.name}" for column in self.spec.needed)
        later = [f"WHEN {case.when} THEN {place}" for place, case in enumerate(refusals) if place >= checks]
        judged = f"coalesce(wrong, CASE {' '.join(later)} END)" if later else "wrong"
        mended = " + ".join(f"CASE WHEN {case.when} THEN {1 << i} ELSE 0 END" for i, case in enumerate(repairs))
        values = ", ".join(self._mended(column.name) for column in self.spec.needed)
        of_kept = f"CASE WHEN problem IS NULL THEN abs(subject_id) % {self.buckets} ELSE -1 END"
        bucket = f", {of_kept} AS bucket" if self.spec.large else ""
        return f"""
            SELECT row, problem, changed, CASE WHEN problem IS NULL THEN mended ELSE 0 END AS mended, {values}
                   {bucket}
            FROM (SELECT *, CAST({judged} AS SMALLINT) AS problem, CAST({mended or "0"} AS INTEGER) AS mended
                  FROM (SELECT row, wrong, changed, {typed}
                        FROM (SELECT row_number() OVER () AS row, {text}, {wrong} AS wrong,
                                     CAST({changed or "0"} AS BIGINT) AS changed FROM {relation}))
                  {self._joins()})"""  # noqa: S608 (names from schema.py, numbered fields, parameters)

    def _mended(self, name: str) -> str:
        """Return a column's SQL: mended where a repair says so; nothing large is kept of a row that is not."""
        sql = name
        for repair in self.spec.repairs:
            if repair.column == name:
                sql = f"CASE WHEN {repair.when} THEN {repair.then} ELSE {sql} END"
        if name == "text":
            sql = f"CASE WHEN problem IS NULL THEN {sql} END"
        return sql if sql == name else f"{sql} AS {name}"

    def _joins(self) -> str:
        joins = ""
        if self.spec.belongs in ("patient", "admission if told"):
            joins += " LEFT JOIN known_patients ON subject_id = known_patient"
        if self.spec.belongs.startswith("admission"):
            joins += " LEFT JOIN known_admissions ON hadm_id = known_admission_id"
        if self.spec.name == "LABEVENTS":
            joins += (
                " LEFT JOIN lab_values ON itemid = lab_item"
                " LEFT JOIN lab_units ON itemid = unit_item AND spell(valueuom) = unit_spelled"
            )
        return joins

    def _parameters(self) -> Mapping[str, Any]:
        return {name: value for conversion in self.conversions for name, value in conversion.parameters.items()}

    # -- what was found ------------------------------------------------------------------------------------------

    @staticmethod
    def _forget(connection: duckdb.DuckDBPyConnection, rejects: str) -> None:
        for name in (rejects, f"{rejects}_scan"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")

    def _broken(self, connection: duckdb.DuckDBPyConnection, rejects: str) -> dict[int, tuple[str, int]]:
        """Return the lines that duckdb could not read: row to what is wrong, and in which field."""
        if not self.table.is_csv:
            return {}
        rows = connection.execute(
            f"SELECT line, arg_min(CAST(error_type AS VARCHAR), column_idx), min(column_idx) FROM {rejects}"  # noqa: S608
            " GROUP BY line ORDER BY line"
        ).fetchall()
        if len(rows) >= REJECTS_LIMIT:
            raise unreadable(self.table.label, f"{REJECTS_LIMIT:,} lines and more are not CSV as its header is")
        return {int(line) - 1: (_BROKEN.get(str(kind), "is not CSV"), int(field)) for line, kind, field in rows}

    def _tally(
        self,
        connection: duckdb.DuckDBPyConnection,
        target: Path,
        refusals: list[_Case],
        repairs: list[_Case],
        broken: dict[int, tuple[str, int]],
    ) -> TableTally:
        place = (
            f"read_parquet('{_literal(target)}{'/*/*.parquet' if self.spec.large else ''}', hive_partitioning = false)"
        )
        number = _Numbers(sorted(broken))
        findings = [*self._of_broken(broken)]
        for kind, sql in (("problem", "problem IS NOT NULL"), ("mended", "mended <> 0")):
            cases = refusals if kind == "problem" else repairs
            for code, count, first in connection.execute(
                f"SELECT {kind}, count(*), min(row, {FIRST_ROWS}) FROM {place} WHERE {sql} GROUP BY {kind} ORDER BY 1"  # noqa: S608
            ).fetchall():
                named = [case for i, case in enumerate(cases) if (code == i if kind == "problem" else code >> i & 1)]
                findings += [self._finding(case, count, [number.of(row) for row in first]) for case in named]
        columns = ", ".join(
            f"count({c.column.name}), count(*) FILTER (WHERE changed >> {i} & 1 = 1)"
            for i, c in enumerate(self.conversions)
        )
        of_kept = f"SELECT count(*), {columns} FROM {place} WHERE problem IS NULL"  # noqa: S608
        kept, *counted = connection.execute(of_kept).fetchall()[0]
        read = connection.execute(f"SELECT count(*) FROM {place}").fetchall()[0][0] + len(broken)  # noqa: S608
        order = {"refused": 0, "repaired": 1, "unused": 2}
        return TableTally(
            name=self.spec.name,
            label=self.table.label,
            digest=self.table.digest,
            read=read,
            kept=kept,
            columns=tuple(
                ColumnTally(
                    name=c.column.name,
                    type=c.column.type,
                    source=c.source,
                    rule=c.rule,
                    filled=filled,
                    empty=kept - filled,
                    converted=converted,
                )
                for c, filled, converted in zip(self.conversions, counted[::2], counted[1::2], strict=True)
            ),
            findings=tuple(sorted(_added(findings), key=lambda f: (order[f.kind], -f.rows))),
        )

    def _of_broken(self, broken: dict[int, tuple[str, int]]) -> list[Finding]:
        found: dict[tuple[str, str], list[int]] = {}
        for row, (words, field) in broken.items():
            inside = words in (_BROKEN["INVALID ENCODING"], _BROKEN["UNQUOTED VALUE"])
            source = self.table.columns[field - 1] if inside and 0 < field <= len(self.table.columns) else ""
            found.setdefault((source, words), []).append(row)
        return [
            Finding(
                kind="refused", column="", source=source, words=words, rows=len(rows), first=tuple(rows[:FIRST_ROWS])
            )
            for (source, words), rows in found.items()
        ]

    def _finding(self, case: _Case, rows: int, first: list[int]) -> Finding:
        source = next((c.source for c in self.conversions if c.column.name == case.column), "")
        return Finding(
            kind=case.kind, column=case.column, source=source, words=case.words, rows=rows, first=tuple(first)
        )


class _Numbers:
    """Rows as the file counts them, from rows as they were numbered without the broken ones."""

    def __init__(self, broken: list[int]) -> None:
        self._broken = broken

    def of(self, row: int) -> int:
        """Return the number of a row in the file."""
        for broken in self._broken:
            if broken > row:
                break
            row += 1
        return row


def _added(findings: list[Finding]) -> list[Finding]:
    """Put findings together that say the same of the same column."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.kind, finding.column or finding.source, finding.words)
        if key in merged:
            other = merged[key]
            first = tuple(sorted({*other.first, *finding.first})[:FIRST_ROWS])
            merged[key] = other.model_copy(update={"rows": other.rows + finding.rows, "first": first})
        else:
            merged[key] = finding
    return list(merged.values())


def _literal(path: Path) -> str:
    """Return a path inside an SQL string: COPY takes no parameter there."""
    return str(path).replace("'", "''")
