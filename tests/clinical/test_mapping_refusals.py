"""What a mapping cannot do is said with file, column and row, and never with a value."""

from __future__ import annotations

import copy
import csv
import gzip
import io
from pathlib import Path

import pytest
import yaml
from tiny_mimic import notes

from fedpriv.clinical import ClinicalTables, SchemaMapping, load_mapping, prepare, write_in_ccu_schema
from fedpriv.errors import DataError

CCU = Path(__file__).parents[2] / "domains" / "ccu" / "mapping.yaml"


@pytest.fixture
def ccu(make_tables, tmp_path) -> Path:
    """The tiny tables in the schema of the ccu."""
    note = ["1", "11", "101", "2150-01-03", "Discharge summary", "Report", "", 'She "slept";\n\nwell']
    with ClinicalTables.open(make_tables(NOTEEVENTS=notes(note))) as tables:
        write_in_ccu_schema(tables, tmp_path / "ccu")
    return tmp_path / "ccu"


def change(folder: Path, file: str, row: int, column: str, value: str) -> None:
    """Change a field; row 0 is the header."""
    path = folder / f"{file}.csv.gz"
    rows = list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline=""), delimiter=";"))
    rows[row][rows[0].index(column)] = value
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=";").writerows(rows)
    path.write_bytes(gzip.compress(stream.getvalue().encode()))


def changed(tmp_path: Path, edit) -> SchemaMapping:
    """Return the ccu's mapping after ``edit`` has changed its tables."""
    value = yaml.safe_load(CCU.read_text())
    edit(value["tables"])
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return load_mapping(path)


def refused(folder: Path, mapping: SchemaMapping | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        ClinicalTables.open(folder, mapping or load_mapping(CCU)).close()
    assert "SECRET" not in str(caught.value)
    assert caught.value.kept
    assert caught.value.todo
    return caught.value


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (
            ("persons", 2, "Born"),
            "SECRET",
            r"column Born for PATIENTS\.DOB does not match the format %d\.%m\.%Y in row 2",
        ),
        (("persons", 2, "Born"), "31.02.2080", "does not match the format"),
        (("persons", 2, "Born"), "01.06.80", "does not match the format"),
        (("persons", 2, "Born"), "2080-06-01", "does not match the format"),
        (("persons", 1, "Born"), "", r"column Born for PATIENTS\.DOB is empty in row 1"),
        (("persons", 3, "Sex"), "SECRET", r"column Sex for PATIENTS\.GENDER has no translation in values in row 3"),
        (("persons", 3, "Sex"), "Female", "has no translation"),
        (
            ("persons", 3, "Person No"),
            "13 SECRET",
            r"Person No for PATIENTS\.SUBJECT_ID is not a whole number in row 3",
        ),
        (("persons", 3, "Person No"), "13.5", "is not a whole number"),
        (("visits", 1, "Died"), "SECRET", r"column Died for ADMISSIONS\.HOSPITAL_EXPIRE_FLAG has no translation"),
        (("visits", 4, "Departure"), "tomorrow SECRET", r"ADMISSIONS\.DISCHTIME does not match"),
        (("unit_stays", 1, "entered"), "01/01/2150 12:00", r"column entered for ICUSTAYS\.INTIME does not match"),
        (("unit_stays", 1, "days"), "1,25", r"column days for ICUSTAYS\.LOS is not a number in row 1"),
        (("unit_stays", 1, "days"), "nan", "is not a number"),
        (("codes", 1, "Code"), "38.0", "is not an ICD-9 code written with a dot"),
        (("codes", 2, "Code"), "99999", r"column Code for DIAGNOSES_ICD\.ICD9_CODE .* in row 2"),
        (("codes", 2, "Code"), "i21.4 SECRET", "is not an ICD-9 code"),
        (("code_names", 1, "Code"), "", r"D_ICD_DIAGNOSES\.ICD9_CODE is empty"),
        (
            ("orders", 3, "first day"),
            "SECRET",
            r"orders\.csv\.gz: column first day for PRESCRIPTIONS\.STARTDATE .* row 3",
        ),
        (("letters", 1, "visit"), "SECRET", r"letters\.csv\.gz: column visit for NOTEEVENTS\.HADM_ID"),
        (("letters", 1, "kind"), "SECRET", "has no translation"),
    ],
)
def test_a_field_that_cannot_be_converted_names_file_column_and_row(ccu, where, value, problem):
    change(ccu, *where, value)
    error = refused(ccu)
    assert error.what.startswith(f"{where[0]}.csv.gz: ")
    with pytest.raises(DataError, match=problem):
        raise error


def test_the_first_of_several_rows_is_named_and_all_are_counted(ccu):
    for row in (3, 2):
        change(ccu, "visits", row, "Arrival", "SECRET")
    assert "in row 2 (first of 2; the header is not counted)" in refused(ccu).what


def test_nothing_is_prepared_and_no_shard_written(ccu, tmp_path):
    change(ccu, "orders", 2, "first day", "SECRET")
    with pytest.raises(DataError, match=r"orders\.csv\.gz"):
        prepare(ccu, tmp_path / "store", mapping=load_mapping(CCU))
    assert not [
        entry for entry in (tmp_path / "store").iterdir() if not entry.name.startswith((".record", "record.lock"))
    ]
    with pytest.raises(DataError, match=r"orders\.csv\.gz"):
        ClinicalTables.open(ccu, load_mapping(CCU))


def test_a_word_outside_an_open_list_passes_as_it_is(ccu):
    change(ccu, "visits", 2, "Went To", "to the seaside")
    with ClinicalTables.open(ccu, load_mapping(CCU)) as tables:
        assert tables.rows("SELECT discharge_location FROM admissions WHERE hadm_id = 102") == [("to the seaside",)]


def test_missing_and_repeated_columns_and_files_are_named(ccu):
    change(ccu, "persons", 0, "Sex", "Gender")
    error = refused(ccu)
    assert "persons.csv.gz has no column Sex (for GENDER)" in error.what
    assert "found: Person No, Gender, Born" in error.what
    change(ccu, "persons", 0, "Gender", "born")
    change(ccu, "persons", 0, "born", "Born")
    assert "no column Sex" in refused(ccu).what
    (ccu / "persons.csv.gz").unlink()
    assert "has no file persons.csv.gz, which mapping.yaml names for PATIENTS" in refused(ccu).what


def test_a_column_that_stands_twice_in_the_header_is_not_chosen_from(ccu, tmp_path):
    change(ccu, "unit_stays", 0, "days", "UNIT")
    mapping = changed(tmp_path, lambda tables: tables["ICUSTAYS"]["columns"].update(los={"constant": ""}))
    assert "unit_stays.csv.gz has twice the column unit (for FIRST_CAREUNIT)" in refused(ccu, mapping).what


def test_a_wrong_constant_is_named_too(ccu, tmp_path):
    mapping = changed(tmp_path, lambda tables: tables["ICUSTAYS"]["columns"].update(los={"constant": "SECRET"}))
    assert "the constant for ICUSTAYS.LOS is not a number in row 1" in refused(ccu, mapping).what


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda t: t["PATIENTS"].update(colour="red"), "tables > PATIENTS > colour: there is no such setting"),
        (lambda t: t.update(CHARTEVENTS=copy.deepcopy(t["PATIENTS"])), "there is no table CHARTEVENTS"),
        (lambda t: t.pop("ICUSTAYS"), "ICUSTAYS cannot be left out"),
        (lambda t: t.update(patients=copy.deepcopy(t["PATIENTS"])), "tables names PATIENTS twice"),
        (lambda t: t["PATIENTS"]["columns"].update(DOB="Other"), "columns names DOB twice"),
        (lambda t: t["PATIENTS"]["columns"].pop("dob"), "PATIENTS > columns > dob: it is missing"),
        (lambda t: t["PATIENTS"]["columns"].update(dod="Died"), "PATIENTS > columns > dod: fedpriv reads no such"),
        (lambda t: t["PATIENTS"]["columns"].update(dob="SEX"), "PATIENTS > columns > dob: SEX is the source of gender"),
        (lambda t: t["PATIENTS"]["dates"].update(gender="%d.%m.%Y"), "PATIENTS > dates > gender: it is no date"),
        (lambda t: t["PATIENTS"]["dates"].update(dob="%d.%m.%y"), "%y cannot be used"),
        (lambda t: t["PATIENTS"]["dates"].update(dob="%m.%Y"), "a day"),
        (lambda t: t["PATIENTS"]["dates"].update(dob="%d.%m.%Y %I"), "with %p"),
        (lambda t: t["PATIENTS"]["dates"].update(dob="%d.%m.%Y %"), "cannot be used"),
        (lambda t: t["PATIENTS"]["values"].update(dob={"map": {"a": "b"}}), "it has a date format already"),
        (lambda t: t["PATIENTS"]["values"]["gender"].update(map={" f": "F"}), "can never be found"),
        (lambda t: t["PATIENTS"].update(icd9="dotted"), "PATIENTS > icd9: it has no column"),
        (lambda t: t["NOTEEVENTS"]["values"].update(category={"map": {"a": "b"}}), "a constant needs none"),
        (lambda t: t["PATIENTS"].update(file="../persons.csv"), "tables > PATIENTS > file"),
        (lambda t: t["PATIENTS"].update(file="/persons.csv"), "tables > PATIENTS > file"),
        (lambda t: t["PATIENTS"].update(file="*.csv"), "tables > PATIENTS > file"),
        (lambda t: t["PATIENTS"].update(file="persons.xlsx"), "tables > PATIENTS > file"),
        (lambda t: t["PATIENTS"].update(delimiter="::"), "tables > PATIENTS > delimiter"),
        (lambda t: t["PATIENTS"]["values"]["gender"].update(map={False: "F"}), "gender > map > False is not text"),
        (lambda t: t["PATIENTS"]["values"]["gender"].update(map={"no": True}), "tables > PATIENTS > values > gender"),
    ],
)
def test_a_mapping_that_says_something_wrong_names_table_and_column(tmp_path, edit, problem):
    with pytest.raises(DataError) as caught:
        changed(tmp_path, edit)
    assert problem in caught.value.what
    assert caught.value.todo


def test_a_file_that_is_no_mapping(tmp_path):
    path = tmp_path / "mapping.yaml"
    with pytest.raises(DataError, match="cannot be read"):
        load_mapping(path)
    for text in (b"\xff", b"- a", b"a: &x 1\nb: *x", b"a: 1\na: 2", b"tables: {}"):
        path.write_bytes(text)
        with pytest.raises(DataError):
            load_mapping(path)


INJECTIONS = ["'; DROP TABLE patients; --", '" || version() || "', "$path", "f0) --", "''", "%' OR '1'='1", "\\';"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_names_codes_formats_and_constants_are_never_read_as_sql(ccu, tmp_path, text):
    """One of each kind that holds SQL gives the same tables, and the constant as it stands."""
    change(ccu, "persons", 0, "Sex", text)
    change(ccu, "persons", 1, text, f"sex {text}")
    for row, day in enumerate(("05.03.1850", "01.06.2080", "01.01.2100"), 1):
        change(ccu, "persons", row, "Born", f"{day} {text}")

    def edit(tables):
        tables["PATIENTS"]["columns"]["gender"] = text
        tables["PATIENTS"]["values"]["gender"]["map"] = {f"sex {text}": f"F{text}", "male": "M"}
        tables["PATIENTS"]["dates"]["dob"] = f"%d.%m.%Y {text.replace('%', '%%')}"
        tables["ADMISSIONS"]["columns"]["diagnosis"] = {"constant": text}

    with ClinicalTables.open(ccu, changed(tmp_path, edit)) as tables:
        assert tables.rows("SELECT gender FROM patients ORDER BY subject_id") == [(f"F{text}",), ("M",), (None,)]
        assert [row[0].year for row in tables.rows("SELECT dob FROM patients ORDER BY subject_id")] == [
            1850,
            2080,
            2100,
        ]
        assert tables.rows("SELECT DISTINCT diagnosis FROM admissions") == [(text,)]
        assert tables.count("PATIENTS") == 3
        assert [row[0] for row in tables.raw_rows("PATIENTS", [12])] == ["12"]
