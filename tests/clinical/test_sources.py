from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import pytest
import yaml
from postgres_server import PASSWORD, programs, running_server

from fedpriv.clinical import ClinicalTables, prepare
from fedpriv.clinical.harmonize import harmonize
from fedpriv.clinical.mapping import load_mapping
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.sources import open_source
from fedpriv.errors import DataError

CCU = Path(__file__).parents[2] / "domains" / "ccu" / "mapping.yaml"


def as_parquet(folder: Path, out: Path) -> Path:
    """Write the tables with types, as a warehouse would have them."""
    out.mkdir()
    for path in folder.glob("*.csv.gz"):
        name = path.name.removesuffix(".csv.gz")
        place = out / f"{name.lower()}.parquet"
        duckdb.sql(f"COPY (SELECT * FROM read_csv('{path}', parallel = false)) TO '{place}' (FORMAT parquet)")  # noqa: S608
    return out


def as_duckdb(folder: Path, path: Path) -> Path:
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE SCHEMA mimiciii")
        for table in folder.glob("*.csv.gz"):
            name = table.name.removesuffix(".csv.gz").lower()
            database.execute(f"CREATE TABLE mimiciii.{name} AS SELECT * FROM read_csv('{table}', parallel = false)")  # noqa: S608
    return path


@pytest.fixture(scope="module")
def database(synthetic, tmp_path_factory):
    """The synthetic tables in a real PostgreSQL server, with mimic-code's schema, names, types and keys."""
    if programs() is None:
        pytest.skip("PostgreSQL's server programs are not here (Debian's package postgresql)")
    import psycopg

    with running_server() as (address, passwords), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(passwords))
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA mimiciii")
            for path in synthetic.glob("*.csv.gz"):
                name = path.name.removesuffix(".csv.gz").lower()
                with gzip.open(path, "rb") as stream:
                    header = stream.readline().decode().strip().lower().split(",")
                types = {c.name: c.type.replace("DOUBLE", "DOUBLE PRECISION") for c in SPECS[name.upper()].needed}
                columns = [f"{c} {'INT PRIMARY KEY' if c == 'row_id' else types.get(c, 'TEXT')}" for c in header]
                connection.execute(f"CREATE TABLE mimiciii.{name} ({', '.join(columns)})")
                into = f"COPY mimiciii.{name} FROM STDIN (FORMAT csv, HEADER)"
                with connection.cursor() as cursor, cursor.copy(into) as copy:
                    copy.write(gzip.decompress(path.read_bytes()))
        yield address


def lines(prepared) -> tuple[bytes, bytes]:
    return prepared.train.read_bytes(), prepared.heldout.read_bytes()


@pytest.mark.parametrize("kind", ["parquet", "duckdb", "postgresql", "plain csv"])
def test_the_examples_are_the_same_from_every_source(synthetic, tmp_path, request, kind):
    expected = lines(prepare(synthetic, tmp_path / "csv"))
    if kind == "parquet":
        place: Path | str = as_parquet(synthetic, tmp_path / "tables")
    elif kind == "duckdb":
        place = as_duckdb(synthetic, tmp_path / "mimic.duckdb")
    elif kind == "plain csv":
        place = tmp_path / "plain"
        place.mkdir()
        for path in synthetic.glob("*.csv.gz"):
            (place / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    else:
        place = request.getfixturevalue("database")
    assert lines(prepare(place, tmp_path / "other")) == expected
    assert lines(prepare(place, tmp_path / "other")) == expected


def test_postgresql_is_read_in_one_look_and_leaves_no_copy(database, tmp_path):
    prepare(database, tmp_path / "store")
    left = [path.name for path in (tmp_path / "store").rglob("*.csv.gz")]
    assert left == []


def test_a_database_is_read_once_until_it_is_asked_for_again(database, tmp_path):
    import psycopg

    first = harmonize(database, tmp_path / "store", again=False)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE mimiciii.d_labitems SET label = label || '.'")
        assert harmonize(database, tmp_path / "store", again=False).digest == first.digest
        assert harmonize(database, tmp_path / "store").digest != first.digest
        connection.execute("UPDATE mimiciii.d_labitems SET label = rtrim(label, '.')")
    assert harmonize(database, tmp_path / "store").digest == first.digest


def test_a_password_in_the_address_is_refused_and_not_shown():
    for address in (f"postgresql://mimic:{PASSWORD}@127.0.0.1:1/x", f"postgresql://127.0.0.1:1/x?password={PASSWORD}"):
        with pytest.raises(DataError, match="pgpass") as caught:
            open_source(address)
        assert PASSWORD not in str(caught.value)


def test_a_database_that_does_not_answer_says_so():
    with pytest.raises(DataError, match="The database cannot be read"):
        open_source("postgresql://mimic@127.0.0.1:1/x")


def test_a_login_that_is_refused_says_so(database, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(DataError, match="login was refused") as caught:
        open_source(database)
    assert "wrong" not in str(caught.value)


def test_a_file_that_is_no_database_or_no_parquet_is_named(tmp_path, make_tables):
    (tmp_path / "x.duckdb").write_bytes(b"nothing" * 1000)
    with pytest.raises(DataError, match=r"x\.duckdb cannot be read"):
        ClinicalTables.open(tmp_path / "x.duckdb")
    folder = make_tables(PATIENTS=None)
    (folder / "PATIENTS.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"PATIENTS\.parquet cannot be read"):
        ClinicalTables.open(folder)


def test_a_mapping_reads_tables_of_a_database(tmp_path, make_tables):
    with ClinicalTables.open(make_tables()) as tables, duckdb.connect(str(tmp_path / "h.duckdb")) as database:
        database.execute("CREATE SCHEMA ward")
        for name in ("PATIENTS", "ADMISSIONS", "ICUSTAYS", "DIAGNOSES_ICD"):
            columns = ", ".join(f"{column} VARCHAR" for column in tables.source_columns(name))
            database.execute(f"CREATE TABLE ward.our_{name} ({columns})")
            for row in tables.raw_rows(name):
                database.execute(f"INSERT INTO ward.our_{name} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
    wanted = {
        name: {"table": f"our_{name}", "columns": {column.name: column.name for column in SPECS[name].needed}}
        for name in ("PATIENTS", "ADMISSIONS", "ICUSTAYS", "DIAGNOSES_ICD")
    }
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump({"tables": wanted}))
    with ClinicalTables.open(tmp_path / "h.duckdb", load_mapping(path)) as tables:
        assert tables.rows("SELECT count(*) FROM admissions") == [(4,)]
    wanted["ICUSTAYS"]["table"] = "elsewhere"
    path.write_text(yaml.safe_dump({"tables": wanted}))
    with pytest.raises(DataError, match="has no table elsewhere, which"):
        ClinicalTables.open(tmp_path / "h.duckdb", load_mapping(path))
