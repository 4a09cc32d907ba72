from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tiny_mimic import notes, tiny_tables

from fedpriv.clinical import ClinicalTables
from fedpriv.clinical.schema import NEEDED_TABLES
from fedpriv.errors import DataError


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_reads_release_and_demo_headers_plain_and_packed(make_tables, upper, plain):
    with ClinicalTables.open(make_tables(upper=upper, plain=plain)) as tables:
        assert tables.count("PATIENTS") == 3
        assert tables.rows("SELECT subject_id, gender FROM patients ORDER BY 1") == [(11, "F"), (12, "M"), (13, None)]
        assert tables.has("PRESCRIPTIONS")
        assert not tables.has("NOTEEVENTS")
        assert tables.count("NOTEEVENTS") == 0


def test_missing_folder_and_file_in_its_place(tmp_path):
    for path in (tmp_path / "none", __file__):
        with pytest.raises(DataError, match="cannot be read"):
            ClinicalTables.open(tmp_path / path)


def test_a_folder_that_this_user_may_not_read_is_not_called_a_wrong_one(tmp_path, monkeypatch):
    def closed(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(DataError, match="let this user read it"):
        ClinicalTables.open(tmp_path)


def test_all_missing_tables_are_named(tmp_path, make_tables):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=", ".join(NEEDED_TABLES)):
        ClinicalTables.open(tmp_path / "empty")
    with pytest.raises(DataError, match=r"has no ICUSTAYS, DIAGNOSES_ICD\. "):
        ClinicalTables.open(make_tables(ICUSTAYS=None, DIAGNOSES_ICD=None))


@pytest.mark.parametrize("optional", ["D_ICD_DIAGNOSES", "PRESCRIPTIONS"])
def test_optional_tables_may_be_missing(make_tables, optional):
    with ClinicalTables.open(make_tables(**{optional: None})) as tables:
        assert tables.rows(f"SELECT count(*) FROM {optional.lower()}") == [(0,)]  # noqa: S608


def test_missing_column_names_table_column_and_found(make_tables):
    rows = [row[:2] + row[3:] for row in tiny_tables()["PATIENTS"]]
    with pytest.raises(DataError, match=r"PATIENTS has no column GENDER; found: ROW_ID, SUBJECT_ID, DOB"):
        ClinicalTables.open(make_tables(PATIENTS=rows))


def test_table_or_column_that_stands_twice(make_tables):
    folder = make_tables()
    (folder / "patients.CSV").write_text("x")
    with pytest.raises(DataError, match="PATIENTS twice"):
        ClinicalTables.open(folder)
    rows = [[*row, row[1]] for row in tiny_tables()["PATIENTS"]]
    with pytest.raises(DataError, match="PATIENTS has twice the column SUBJECT_ID"):
        ClinicalTables.open(make_tables("other", PATIENTS=rows))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "empty", "no header"])
def test_damaged_gz_names_the_file(make_tables, damage):
    path = make_tables() / "ADMISSIONS.csv.gz"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-6] ^= 1  # in the CRC, which duckdb does not check
    changed = {"cut": data[:-20], "flipped": data, "no gzip": b"ROW_ID,SUBJECT_ID", "empty": b""}
    path.write_bytes(changed.get(damage, gzip.compress(b"\n")))
    with pytest.raises(DataError, match=r"ADMISSIONS\.csv\.gz cannot be read") as caught:
        ClinicalTables.open(path.parent)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "tail", [b'9,"SECRETVALUE', b"9,SECRETVALUE", b"9,1,SECRETVALUE\xff,2000-01-01", b"9,1,M,SECRETVALUE,2,3"]
)
def test_bad_rows_name_the_line_and_no_value(make_tables, tail):
    path = make_tables() / "PATIENTS.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + tail + b"\n"))
    with pytest.raises(DataError, match=r"PATIENTS\.csv\.gz: .* in row 4 \(first of 1") as caught:
        ClinicalTables.open(path.parent)
    assert "SECRETVALUE" not in str(caught.value)


def test_values_of_the_wrong_type_are_counted_not_shown(make_tables):
    rows = tiny_tables()["ADMISSIONS"]
    rows[1][3], rows[2][3] = "SECRETVALUE", ""
    with pytest.raises(DataError, match=r"ADMITTIME is not a time in row 1 .*; 2 of 4 rows are refused") as caught:
        ClinicalTables.open(make_tables(ADMISSIONS=rows))
    assert "SECRETVALUE" not in str(caught.value)


def test_repeated_key_and_unknown_patient(make_tables):
    rows = tiny_tables()["ADMISSIONS"]
    with ClinicalTables.open(make_tables(ADMISSIONS=[*rows, rows[1]])) as tables:
        assert tables.rows("SELECT count(*) FROM admissions") == [(4,)]
        assert "repeats another row" in tables.tally.tables[1].findings[0].words
    other = [*rows[1][:-1], "0"]
    with pytest.raises(DataError, match=r"HADM_ID is the key of another row, .* in row 1 .*; 2 of 5 rows"):
        ClinicalTables.open(make_tables("twice", ADMISSIONS=[*rows, other]))
    with pytest.raises(DataError, match="SUBJECT_ID is of no patient in PATIENTS in row 4"):
        ClinicalTables.open(make_tables("other", PATIENTS=tiny_tables()["PATIENTS"][:-1]))


def test_folder_that_duckdb_would_read_as_a_pattern(make_tables):
    with pytest.raises(DataError, match="in its path"):
        ClinicalTables.open(make_tables("a[b]"))
    with ClinicalTables.open(make_tables("a {b,c} 'd' \"e\"")) as tables:
        assert tables.count("PATIENTS") == 3


def test_notes_keep_newlines_quotes_and_commas(make_tables):
    text = 'line "one",\n\n1,2,3\r\n"quoted"\n'
    folder = make_tables(NOTEEVENTS=notes(["1", "11", "101", "", "Discharge summary", "Report", "", text]))
    with ClinicalTables.open(folder) as tables:
        assert tables.rows("SELECT text FROM noteevents") == [(text,)]
        assert [row[-1] for row in tables.raw_rows("NOTEEVENTS", [11])] == [text]
        assert list(tables.raw_rows("NOTEEVENTS", [12])) == []


def test_real_demo_opens(mimic_demo):
    with ClinicalTables.open(mimic_demo) as tables:
        assert (tables.count("PATIENTS"), tables.count("ADMISSIONS"), tables.count("ICUSTAYS")) == (100, 129, 136)
        assert tables.count("PRESCRIPTIONS") == 10398
        assert tables.source_columns("PATIENTS")[1] == "subject_id"
