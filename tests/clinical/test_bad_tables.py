"""What is wrong with tables, each kind once: named with file, row and column, counted, and refused or mended."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from tiny_mimic import as_csv, notes, tiny_tables

from fedpriv.clinical import ClinicalTables, prepare
from fedpriv.clinical.harmonize import bucket_count, harmonize
from fedpriv.clinical.record import Record
from fedpriv.clinical.schema import MAX_NOTE_CHARACTERS
from fedpriv.clinical.synthetic import Size, write_synthetic
from fedpriv.errors import DataError

LABS = ["row_id", "subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom", "flag"]


def findings(folder, **options):
    """Return (table, kind, column, words, rows, first) of everything that is found, whatever its share."""
    with ClinicalTables.open(folder, refused_share=None, **options) as tables:
        return [
            (table.name, f.kind, f.column, f.words, f.rows, f.first)
            for table in tables.tally.tables
            for f in table.findings
        ]


def test_an_encoding_error_in_row_1_000_003_is_named(make_tables):
    rows = tiny_tables()["DIAGNOSES_ICD"][:1]
    folder = make_tables(DIAGNOSES_ICD=rows)
    path = folder / "DIAGNOSES_ICD.csv.gz"
    good, bad = b"1,11,101,1,0380\n", b"1,11,101,1,03\xff80\n"
    head = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(head + good * 1_000_002 + bad + good * 10, 1))
    with ClinicalTables.open(folder) as tables:  # one row of a million: counted, and the others are used
        assert tables.rows("SELECT count(*) FROM diagnoses_icd") == [(1_000_012,)]
    assert ("DIAGNOSES_ICD", "refused", "", "is not UTF-8 text", 1, (1_000_003,)) in findings(folder)
    path.write_bytes(gzip.compress(head + good * 100 + bad + good * 10, 1))
    with pytest.raises(DataError, match=r"DIAGNOSES_ICD.csv.gz: column ICD9_CODE is not UTF-8 text in row 101 "):
        ClinicalTables.open(folder)


def test_rows_after_a_broken_one_keep_their_number(make_tables):
    rows = tiny_tables()["DIAGNOSES_ICD"]
    folder = make_tables(DIAGNOSES_ICD=[*rows, ["9", "11", "999", "1", "0380"]])
    path = folder / "DIAGNOSES_ICD.csv.gz"
    text = gzip.decompress(path.read_bytes()).split(b"\n")
    text.insert(2, b"8,11")
    path.write_bytes(gzip.compress(b"\n".join(text)))
    found = findings(folder)
    assert ("DIAGNOSES_ICD", "refused", "", "has fewer fields than the header", 1, (2,)) in found
    assert ("DIAGNOSES_ICD", "refused", "hadm_id", "is of no admission in ADMISSIONS", 1, (5,)) in found


@pytest.mark.parametrize("kind", ["cut within quotes", "cut gzip", "semicolons"])
def test_a_file_that_cannot_be_whole_is_refused(make_tables, kind):
    told = [["1", "11", "101", "2150-01-02", "Nursing", "Report", "", f'note "{n}"\nof two lines'] for n in range(9)]
    folder = make_tables(NOTEEVENTS=notes(*told))
    path = folder / "NOTEEVENTS.csv.gz"
    data = gzip.decompress(path.read_bytes())
    if kind == "cut gzip":
        path.write_bytes(gzip.compress(data)[:-30])
    else:
        path.write_bytes(gzip.compress(data[:-8] if kind == "cut within quotes" else data.replace(b",", b";")))
    words = {
        "cut within quotes": "ends within quotes|quote that is not doubled or not closed",
        "cut gzip": "it is cut off, damaged, or not a gzip file",
        "semicolons": r"its fields seem to be divided by ';'",
    }
    with pytest.raises(DataError, match=words[kind]) as caught:
        ClinicalTables.open(folder)
    assert "NOTEEVENTS" in str(caught.value)


def test_people_and_times_that_cannot_be(make_tables):
    tables = tiny_tables()
    patients, admissions, stays = tables["PATIENTS"], tables["ADMISSIONS"], tables["ICUSTAYS"]
    patients[2][3] = "2160-01-01 00:00:00"  # born after both admissions
    admissions[1][4] = "2149-12-31 00:00:00"  # left before coming
    stays[4][6] = "-1"
    orphan = ["9", "77", "105", *admissions[4][3:]]
    found = findings(make_tables(PATIENTS=patients, ADMISSIONS=[*admissions, orphan], ICUSTAYS=stays))
    assert ("ADMISSIONS", "refused", "admittime", "is before the patient's birth", 2, (2, 3)) in found
    assert ("ADMISSIONS", "refused", "subject_id", "is of no patient in PATIENTS", 1, (5,)) in found
    assert ("ADMISSIONS", "repaired", "dischtime", "was before the admission and is left empty", 1, (1,)) in found
    assert ("ICUSTAYS", "refused", "hadm_id", "is of no admission in ADMISSIONS", 2, (2, 3)) in found
    assert ("ICUSTAYS", "repaired", "los", "was below zero and is left empty", 1, (4,)) in found


def test_a_note_of_ten_megabytes_is_cut_and_counted(make_tables):
    long = ["1", "11", "101", "2150-01-02", "Nursing", "Report", "", "word " * 2_000_000]
    short = ["2", "11", "101", "2150-01-02", "Nursing", "Report", "", "word"]
    folder = make_tables(NOTEEVENTS=notes(short, long))
    with ClinicalTables.open(folder) as tables:
        assert tables.rows("SELECT max(length(text)), count(*) FROM noteevents") == [(MAX_NOTE_CHARACTERS, 2)]
    assert [(f[2], f[4], f[5]) for f in findings(folder) if f[1] == "repaired"] == [("text", 1, (2,))]


def lab(item, value, unit, hadm="101"):
    return ["1", "11", hadm, item, "2150-01-01 13:00:00", value, value, unit, ""]


def test_units_are_converted_or_refused(make_tables):
    rows = [
        LABS,
        lab("50912", "88.4", "µmol/L"),
        lab("50912", "1", "MG/DL"),
        lab("50971", "4", "mmol/l"),
        lab("50912", "1", "stone"),
        lab("50912", "1", ""),
        lab("51237", "1.2", ""),
        lab("1", "1", "stone"),
        lab("50912", "1", "mg/dL", hadm=""),
    ]
    folder = make_tables(LABEVENTS=rows)
    with ClinicalTables.open(folder, refused_share=None) as tables:
        values = tables.rows("SELECT itemid, round(valuenum, 2), valueuom FROM labevents ORDER BY ALL")
    assert values == [(50912, 1.0, "mg/dL")] * 3 + [(50971, 4.0, "mEq/L"), (51237, 1.2, None)]
    found = findings(folder)
    assert ("LABEVENTS", "refused", "valueuom", "is no unit that is known for this value", 1, (4,)) in found
    assert ("LABEVENTS", "repaired", "valuenum", "was converted to the record's unit", 1, (1,)) in found
    assert ("LABEVENTS", "unused", "itemid", "is none of the values that texts tell", 1, (7,)) in found
    assert ("LABEVENTS", "unused", "hadm_id", "is empty", 1, (8,)) in found


def test_every_row_is_kept_refused_or_left_out(make_tables):
    rows = tiny_tables()["PRESCRIPTIONS"]
    bad = ["5", "11", "101", "never", "MAIN", "Aspirin"]
    folder = make_tables(PRESCRIPTIONS=[*rows, bad, ["6", "12", "101", "", "MAIN", "Aspirin"]])
    with ClinicalTables.open(folder, refused_share=None) as tables:
        for table in tables.tally.tables:
            assert table.read == table.kept + table.count("refused") + table.count("unused"), table.name
            for column in table.columns:
                assert column.filled + column.empty == table.kept


# -- killed at any moment -------------------------------------------------------------------------------------------


def _work(folder: str, store: str) -> None:
    prepare(Path(folder), Path(store))


def test_a_killed_preparation_goes_on_and_ends_the_same(tmp_path):
    write_synthetic(tmp_path / "t", size=Size(patients=60, admissions=70, notes=3000, long_notes=True))
    begun = time.monotonic()
    expected = prepare(tmp_path / "t", tmp_path / "whole")
    whole_s = time.monotonic() - begun
    context = multiprocessing.get_context("spawn")
    kills = 0
    for place in range(6):
        process = context.Process(target=_work, args=(str(tmp_path / "t"), str(tmp_path / "killed")))
        process.start()
        process.join(0.4 + whole_s * (place + 1) / 6)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    prepared = prepare(tmp_path / "t", tmp_path / "killed")
    assert kills > 0
    assert prepared.digest == expected.digest
    assert prepared.train.read_bytes() == expected.train.read_bytes()
    left = [path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]
    assert left == []


def test_finished_tables_are_not_read_again_and_changed_ones_are(make_tables, tmp_path):
    folder = make_tables(DIAGNOSES_ICD=[tiny_tables()["DIAGNOSES_ICD"][0], ["1", "11", "999", "1", "0380"]])
    with pytest.raises(DataError, match="DIAGNOSES_ICD"):
        harmonize(str(folder), tmp_path / "store")
    (work,) = (tmp_path / "store").glob(".record-*")
    before = (work / "ADMISSIONS.parquet").stat().st_mtime_ns
    (folder / "DIAGNOSES_ICD.csv.gz").write_bytes(gzip.compress(as_csv(tiny_tables()["DIAGNOSES_ICD"])))
    record = harmonize(str(folder), tmp_path / "store")
    assert (record.folder / "ADMISSIONS.parquet").stat().st_mtime_ns == before
    shutil.copytree(folder, tmp_path / "copy")
    assert harmonize(str(tmp_path / "copy"), tmp_path / "store").digest == record.digest
    assert harmonize(str(folder), tmp_path / "store").digest == record.digest


def test_a_changed_record_is_found(make_tables, tmp_path):
    record = harmonize(str(make_tables()), tmp_path / "store")
    path = record.folder / "PATIENTS.parquet"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"PATIENTS\.parquet is not what its manifest says"):
        Record.open(record.folder)


def test_nothing_of_the_data_is_readable_by_others(make_tables, tmp_path):
    record = harmonize(str(make_tables(LABEVENTS=[LABS, lab("50912", "1", "mg/dL")])), tmp_path / "store")
    for path in record.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.is_dir()
    assert record.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (2**26, 1), (2**26 + 1, 2), (4 * 10**9, 64), (10**12, 256)])
def test_parts_are_a_power_of_two_of_about_64_mb(size, parts):
    assert bucket_count(size) == parts


def test_parts_of_the_patients_are_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("fedpriv.clinical.harmonize._BUCKET_BYTES", 200_000)
    write_synthetic(tmp_path / "t", size=Size(patients=60, admissions=70, notes=900, long_notes=True))
    record = harmonize(str(tmp_path / "t"), tmp_path / "parts")
    assert record.bucket_count == 16
    assert record.manifest.buckets["LABEVENTS"] < record.manifest.buckets["NOTEEVENTS"]
    for name in ("patients", "admissions", "labevents", "noteevents", "d_icd_diagnoses"):
        sql = f"SELECT * FROM {name} ORDER BY ALL"  # noqa: S608
        with record.tables() as tables:
            whole = tables.rows(sql)
        parts = []
        for number in range(record.bucket_count):
            with record.bucket(number) as tables:
                parts.append(tables.rows(sql))
        if name == "d_icd_diagnoses":
            assert all(part == whole for part in parts)
        else:
            assert sorted(map(str, (row for part in parts for row in part))) == sorted(map(str, whole))
    one = prepare(tmp_path / "t", tmp_path / "parts")
    monkeypatch.undo()
    assert sorted(line.split(b'"text"')[1] for line in one.train.read_bytes().splitlines()) == sorted(
        line.split(b'"text"')[1] for line in prepare(tmp_path / "t", tmp_path / "one").train.read_bytes().splitlines()
    )
