"""From a hospital's tables to the common record: every table once, a killed run continued where it stopped."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
from pydantic import ValidationError

from fedpriv.clinical.conversion import Conversion, convert
from fedpriv.clinical.ingest import Ingest
from fedpriv.clinical.lab_units import ANALYTES, SPELLING_SQL, spelled
from fedpriv.clinical.mapping import SchemaMapping, TableMapping
from fedpriv.clinical.record import MANIFEST_FILE, RECORD_VERSION, Record, RecordManifest, connect
from fedpriv.clinical.schema import NEEDED_TABLES, SPECS, TableSpec
from fedpriv.clinical.sources import Source, SourceTable, open_source
from fedpriv.clinical.sources.postgres import is_postgres
from fedpriv.clinical.tally import TableTally, Tally
from fedpriv.errors import DataError, UntrustedError
from fedpriv.files import (
    canonical_json,
    file_sha256,
    folder_lock,
    private_folder,
    read_json,
    sha256_hex,
    sync_folder,
    write_json,
)

REFUSED_SHARE = 0.001
"""More refused rows than this share of a table are a mistake in the tables or in the mapping: nothing is prepared."""

_BUCKET_BYTES = 64 * 2**20
_MOST_BUCKETS = 256
_LOOK_EVERY_S = 0.25

Progress = Callable[[str, float], None]


def silent(_stage: str, _fraction: float) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One harmonising."""

    source: Source
    mapping: SchemaMapping | None
    work: Path
    refused_share: float | None
    on_progress: Progress


def harmonize(
    location: str | Path,
    store: Path,
    *,
    mapping: SchemaMapping | None = None,
    refused_share: float | None = REFUSED_SHARE,
    again: bool = True,
    on_progress: Progress = silent,
) -> Record:
    """Read a hospital's tables and write the common record to ``<store>/record-<digest>/``.

    Safe to be killed at any moment: tables that are done are kept, and the next call goes on with the others, if the
    source still has the same bytes.

    Parameters
    ----------
    location : str or Path
        A folder of CSV, csv.gz or Parquet files, a DuckDB file, or the address of a PostgreSQL database.
    store : Path
        A private folder of the domain.
    mapping : SchemaMapping, optional
        How the tables become MIMIC-III's; without it they are.
    refused_share : float, optional
        Largest share of a table's rows that may be refused. None: any; then only look at the tally.
    again : bool, default True
        Whether a database that was read before is read again. Files are always looked at: they are the same or they are
        not; a database in use is never the same, and a study needs examples that stay.
    on_progress : Callable[[str, float], None]
        Called with a stage in words and its done fraction; from other threads, too.

    Returns
    -------
    Record
        The same folder whenever tables and mapping are the same.

    Raises
    ------
    DataError
        If a table or a column is missing, a file is damaged, or more rows are refused than may be.
    LockError
        If another process harmonises into the same store.
    """
    location = str(location)
    try:
        private_folder(store)
    except OSError as error:
        raise DataError(
            f"The store {store} cannot be written ({error.strerror})",
            kept="Nothing was written",
            todo="check the disk and the permissions, or choose another folder",
        ) from error
    with folder_lock(store / "record.lock", holder=f"the store {store}", todo="wait until it is done and try again"):
        start = sha256_hex(canonical_json([RECORD_VERSION, location, _mapping_json(mapping), repr(SPECS)]))[:16]
        read = store / "read" / f"{start}.json"
        if not again and is_postgres(location) and (known := _known(store, read)) is not None:
            return known
        source = open_source(location)
        try:
            names = _tables_of(source, mapping)
            for left in store.glob(".record-*"):
                if left.name != f".record-{start}":
                    shutil.rmtree(left, ignore_errors=True)
            work = private_folder(store / f".record-{start}")
            run = _Run(source=source, mapping=mapping, work=work, refused_share=refused_share, on_progress=on_progress)
            tallies, buckets = _all_tables(run, names)
            record = _publish(run, store, tallies, buckets)
            if is_postgres(location):
                private_folder(read.parent)
                write_json(read, record.digest)
            return record
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()


def _tables_of(source: Source, mapping: SchemaMapping | None) -> dict[str, str]:
    """Return MIMIC-III's names to what the source has for them, in the order in which they are read."""
    if mapping is not None:
        return {name: _mapped(source, name, mapping.tables[name]) for name in SPECS if name in mapping.tables}
    found = {name: source.find(name) for name in SPECS}
    missing = [name for name in NEEDED_TABLES if found[name] is None]
    if missing:
        raise DataError(
            f"{source.location} has no {', '.join(missing)}",
            kept="Nothing was written",
            todo="put the tables there as NAME.csv, NAME.csv.gz or NAME.parquet, as PhysioNet publishes them",
        )
    return {name: place for name, place in found.items() if place is not None}


def _mapped(source: Source, name: str, table: TableMapping) -> str:
    """Return what a mapping names, after a look whether it is there."""
    wanted = table.place
    there = source.names()
    if wanted not in there and not any(full.split(".")[-1] == wanted for full in there if table.table):
        what = "file" if table.file else "table"
        raise DataError(
            f"{source.location} has no {what} {wanted}, which mapping.yaml names for {name}",
            kept="Nothing was written",
            todo="put it there, or correct the name" + (", or leave the table out" if SPECS[name].optional else ""),
        )
    return wanted


def _all_tables(run: _Run, names: dict[str, str]) -> tuple[list[TableTally], dict[str, int]]:
    tallies: list[TableTally] = []
    buckets: dict[str, int] = {}
    scratch = private_folder(run.work / "scratch")
    goes_on = True  # a table that is done counts only if all before it were: its rows were compared with theirs
    with contextlib.closing(connect(run.work)) as connection:
        _prepare(connection, run)
        for name, place in names.items():
            delimiter = run.mapping.tables[name].delimiter if run.mapping else ","
            stage = f"{name}: checking"
            table = run.source.open(
                place, delimiter=delimiter, scratch=scratch, on_progress=lambda done, s=stage: run.on_progress(s, done)
            )
            spec = SPECS[name]
            if spec.large:
                buckets[name] = bucket_count(table.size_bytes)
            done = _done(run.work, name, table.digest) if goes_on else None
            if done is None:
                goes_on = False
                done = _one_table(run, connection, spec, table, buckets.get(name, 1))
            _remember(connection, name, run.work)
            _refuse_too_many(done, run)
            tallies.append(done)
            for left in scratch.iterdir():
                left.unlink()
    scratch.rmdir()
    return tallies, buckets


def bucket_count(size_bytes: int) -> int:
    """Return into how many parts, a power of two, a table of so many bytes of text is divided."""
    count = 1
    while count < _MOST_BUCKETS and size_bytes > count * _BUCKET_BYTES:
        count *= 2
    return count


def _prepare(connection: duckdb.DuckDBPyConnection, run: _Run) -> None:
    """Make the tables that rows are compared with."""
    if run.source.attach:
        connection.execute(run.source.attach)
    connection.execute(f"CREATE MACRO spell(unit) AS {SPELLING_SQL}")
    connection.execute("CREATE TABLE known_patients (known_patient BIGINT, born TIMESTAMP)")
    connection.execute("CREATE TABLE known_admissions (known_admission_id BIGINT, known_admission BIGINT)")
    connection.execute("CREATE TABLE lab_values (lab_item BIGINT, unit VARCHAR)")
    connection.execute("CREATE TABLE lab_units (unit_item BIGINT, unit_spelled VARCHAR, factor DOUBLE)")
    for analyte in ANALYTES:
        connection.execute("INSERT INTO lab_values VALUES (?, nullif(?, ''))", [analyte.item, analyte.unit])
        units = {spelled(analyte.unit): 1.0, **analyte.others}
        if run.mapping is None:
            units[""] = 1.0  # MIMIC-III leaves the unit out in a few rows, and it is always the same
        for unit, factor in units.items():
            connection.execute("INSERT INTO lab_units VALUES (?, ?, ?)", [analyte.item, unit, factor])


def _one_table(
    run: _Run, connection: duckdb.DuckDBPyConnection, spec: TableSpec, table: SourceTable, buckets: int
) -> TableTally:
    target = _target(run.work, spec)
    for left in (target, _tally_path(run.work, spec.name)):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    conversions = conversions_of(spec, table, run.mapping and run.mapping.tables[spec.name])
    ingest = Ingest(spec, table, conversions, buckets)
    with _watched(connection, lambda done: run.on_progress(f"{spec.name}: reading", done)):
        tally = ingest.run(connection, target)
    write_json(_tally_path(run.work, spec.name), tally.model_dump(mode="json"))
    return tally


def conversions_of(spec: TableSpec, table: SourceTable, mapping: TableMapping | None) -> list[Conversion]:
    """Return how each column of a table is made.

    Raises
    ------
    DataError
        If a column that is needed, or that the mapping names, is missing or stands twice.
    """
    found = [name.strip().lower() for name in table.columns]
    if mapping is None:
        lacking = [c.name for c in spec.needed if c.name not in found]
        if missing := [c.name.upper() for c in spec.needed if c.name in lacking and not c.may_lack]:
            raise _no_column(spec, table, ", ".join(missing), "")
        mapping = TableMapping.model_construct(
            columns={c.name: c.name for c in spec.needed if c.name not in lacking}, dates={}, values={}, icd9=None
        )
        by = ""
    else:
        by = f", which mapping.yaml names for {spec.name}"
    conversions: list[Conversion] = []
    for column in spec.needed:
        source = mapping.columns.get(column.name)
        place = -1
        if isinstance(source, str):
            if found.count(source.strip().lower()) != 1:
                told = f"{source} (for {column.name.upper()})" if by else source.upper()
                twice = source.strip().lower() in found
                raise _no_column(spec, table, told, by, twice=twice)
            place = found.index(source.strip().lower())
        conversions.append(convert(column, mapping, f"f{place}"))
    return conversions


def _no_column(spec: TableSpec, table: SourceTable, wanted: str, by: str, *, twice: bool = False) -> DataError:
    found = ", ".join(table.columns[:60])[:2000]
    other = next((mark for mark in (";", "\t", "|", ",") if len(table.columns) == 1 and mark in found), "")
    hint = f" (its fields seem to be divided by {'a tab' if other == chr(9) else other!r})" if other else ""
    what = table.label if by else spec.name
    return DataError(
        f"{what} has {'twice the' if twice else 'no'} column {wanted}{by}; found: {found}{hint}",
        kept="Nothing was written",
        todo="correct the name or the delimiter in mapping.yaml, or the header of the file"
        if by
        else f"remove one of them from {table.label}"
        if twice
        else f"check that {table.label} is the MIMIC-III table with its header, divided by commas",
    )


def _remember(connection: duckdb.DuckDBPyConnection, name: str, work: Path) -> None:
    """Keep of a finished table what the rows of the next ones are compared with."""
    path = str(_target(work, SPECS[name])).replace("'", "''")
    kept = f"FROM read_parquet('{path}') WHERE problem IS NULL"
    if name == "PATIENTS":
        connection.execute(f"INSERT INTO known_patients SELECT subject_id, dob {kept}")
    if name == "ADMISSIONS":
        connection.execute(f"INSERT INTO known_admissions SELECT hadm_id, subject_id {kept}")


def _refuse_too_many(tally: TableTally, run: _Run) -> None:
    refused = tally.count("refused")
    if run.refused_share is None or refused <= run.refused_share * tally.read:
        return
    first = next(finding for finding in tally.findings if finding.kind == "refused")
    column = f"column {first.source}" if first.source else "the constant" if first.column else "a row"
    target = f" for {tally.name}.{first.column.upper()}" if first.column else ""
    raise DataError(
        f"{tally.label}: {column}{target} {first.words} in row {first.first[0]}"
        f" (first of {first.rows:,}; the header is not counted); {refused:,} of {tally.read:,} rows are refused",
        kept="Nothing was written and the tables are unchanged",
        todo=(f"compare that row with {tally.name} in mapping.yaml, and correct one of the two"
              if run.mapping else "compare the table with the MIMIC-III release and copy it again")
        + "; `fedpriv data harmonize --check` shows all that is wrong",
    )  # fmt: skip


def _publish(run: _Run, store: Path, tallies: list[TableTally], buckets: dict[str, int]) -> Record:
    went_in = {tally.name: tally.digest for tally in tallies}
    digest = sha256_hex(canonical_json([RECORD_VERSION, went_in, _mapping_json(run.mapping), repr(SPECS)]))
    target = store / f"record-{digest}"
    if (target / MANIFEST_FILE).exists():
        shutil.rmtree(run.work, ignore_errors=True)
        return Record.open(target)
    for left in (run.work / ".spill", target):
        shutil.rmtree(left, ignore_errors=True)
    files = sorted(path for path in run.work.rglob("*.parquet"))
    for path in files:
        path.chmod(0o600)
    manifest = RecordManifest(
        version=RECORD_VERSION,
        digest=digest,
        buckets=buckets,
        files={path.relative_to(run.work).as_posix(): file_sha256(path) for path in files},
        tally=Tally(
            source=run.source.location,
            tables=tuple(tallies),
            missing=tuple(name for name in SPECS if name not in went_in),
        ),
    )
    write_json(run.work / MANIFEST_FILE, manifest.model_dump(mode="json"))
    sync_folder(run.work)
    run.work.rename(target)
    sync_folder(store)
    return Record(target, manifest)


def _known(store: Path, read: Path) -> Record | None:
    """Return the record that was made when a database was read last, if it is there and whole."""
    try:
        return Record.open(store / f"record-{Path(str(read_json(read))).name}")
    except (OSError, UntrustedError, DataError):
        return None


def _done(work: Path, name: str, digest: str) -> TableTally | None:
    """Return what was found in a table that an earlier run finished, if it has not changed since."""
    try:
        tally = TableTally.model_validate_json(_tally_path(work, name).read_bytes())
    except (OSError, ValidationError):
        return None
    return tally if tally.digest == digest and _target(work, SPECS[name]).exists() else None


def _target(work: Path, spec: TableSpec) -> Path:
    return work / spec.name if spec.large else work / f"{spec.name}.parquet"


def _tally_path(work: Path, name: str) -> Path:
    return work / f"{name}.json"


def _mapping_json(mapping: SchemaMapping | None) -> object:
    return mapping.model_dump(mode="json") if mapping else None


@contextlib.contextmanager
def _watched(connection: duckdb.DuckDBPyConnection, tell: Callable[[float], None]) -> Iterator[None]:
    """Tell how far duckdb is, while it works."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            done = connection.query_progress()
            if done >= 0:
                tell(min(1.0, done / 100))

    tell(0.0)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    tell(1.0)
