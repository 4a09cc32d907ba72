from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_mimic import read_table

from fedpriv.clinical import ClinicalTables, narratives, patients_per_unit, write_synthetic
from fedpriv.clinical.schema import RELEASE_COLUMNS
from fedpriv.clinical.synthetic import Size, _allot, full_size
from fedpriv.errors import DataError, ExistsError


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_synthetic(tmp_path / name, patients=12, seed=seed)
    for table in RELEASE_COLUMNS:
        a, b = ((tmp_path / name / f"{table}.csv.gz").read_bytes() for name in "ab")
        assert a == b
    assert (tmp_path / "c" / "NOTEEVENTS.csv.gz").read_bytes() != (tmp_path / "a" / "NOTEEVENTS.csv.gz").read_bytes()


def test_default_size_columns_and_units(synthetic):
    for table, columns in RELEASE_COLUMNS.items():
        assert tuple(read_table(synthetic / f"{table}.csv.gz")[0]) == columns
    with ClinicalTables.open(synthetic) as tables:
        counts = patients_per_unit(tables)
    assert list(counts) == ["MICU", "SICU", "CCU", "CSRU", "TSICU"]
    assert min(list(counts.values())[:3]) >= 40
    assert sum(counts.values()) == 240


def test_notes_are_short_marked_and_different_by_unit(synthetic):
    rows = read_table(synthetic / "NOTEEVENTS.csv.gz")
    noted = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    bodies = [note["TEXT"] for note in noted if note["CATEGORY"] == "Discharge summary"]
    assert all(60 <= len(body.split()) <= 150 for body in bodies)
    assert all("[**" in body and '"' in body and "\n" in body for body in bodies)
    assert len(set(bodies)) == len(bodies)
    with ClinicalTables.open(synthetic) as tables:
        told = list(narratives(tables))
    assert {narrative.source for narrative in told} == {"discharge summary"}
    words = {
        unit: {word for n in told if f", {unit}," in n.text for word in n.text.lower().split()}
        for unit in ("MICU", "SICU", "CCU")
    }
    assert len(words["MICU"] & words["SICU"]) < 0.5 * min(map(len, words.values()))


def test_a_size_is_kept_to_the_row_and_the_stay_holds_what_is_charted(tmp_path):
    size = Size(patients=40, admissions=51, notes=400, long_notes=True)
    write_synthetic(tmp_path / "t", size=size, seed=3)
    tables = {name: read_table(tmp_path / "t" / f"{name}.csv.gz") for name in RELEASE_COLUMNS}
    assert [len(tables[name]) - 1 for name in ("PATIENTS", "ADMISSIONS", "NOTEEVENTS")] == [40, 51, 400]
    stays = {row[2]: (row[3], row[4]) for row in tables["ADMISSIONS"][1:]}
    kinds = set()
    for table, place in (("NOTEEVENTS", 4), ("LABEVENTS", 4)):
        for row in tables[table][1:]:
            into, out = stays[row[2]]
            assert not row[place] or into <= row[place] <= out
            kinds.add(row[6] if table == "NOTEEVENTS" else "lab")
    assert kinds == {"Discharge summary", "Nursing", "Nursing/other", "Radiology", "lab"}
    lengths = [len(row[-1]) for row in tables["NOTEEVENTS"][1:]]
    assert 1200 < sum(lengths) / len(lengths) < 3000  # as in MIMIC-III: 4 GB over 2,083,180 notes


def test_full_size_is_that_of_mimic_iii():
    whole, part = full_size(), full_size(0.05)
    assert (whole.patients, whole.admissions, whole.notes) == (46_520, 58_976, 2_083_180)
    assert part.notes == 104_159


@pytest.mark.parametrize("size", [Size(patients=10, admissions=9), Size(patients=10, admissions=21), Size(notes=30)])
def test_a_size_that_cannot_be_is_refused(tmp_path, size):
    with pytest.raises(DataError):
        write_synthetic(tmp_path / "t", size=size)
    assert not (tmp_path / "t").exists()


def test_times_and_ids_lie_where_they_should(synthetic):
    header, *rows = read_table(synthetic / "ADMISSIONS.csv.gz")
    for row in (dict(zip(header, values, strict=True)) for values in rows):
        assert "2100" < row["ADMITTIME"] < row["DISCHTIME"] < "2200"
        assert int(row["SUBJECT_ID"]) >= 900_000
        assert int(row["HADM_ID"]) >= 900_000


def test_size_is_checked_and_folder_kept(tmp_path):
    for patients in (0, -1, 50_001):
        with pytest.raises(DataError, match="synthetic patients"):
            write_synthetic(tmp_path / "x", patients=patients)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ExistsError):
        write_synthetic(tmp_path / "full")
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    write_synthetic(tmp_path / "empty", patients=1)
    assert len(list((tmp_path / "empty").iterdir())) == len(RELEASE_COLUMNS)


@given(st.integers(1, 2000))
@settings(max_examples=50)
def test_shares_add_up(patients):
    assert len(_allot(patients)) == patients


def test_nothing_of_the_real_demo_is_in_it(mimic_demo, synthetic):
    def values(folder, table, column):
        header, *rows = read_table(folder / f"{table}.csv.gz")
        place = [name.upper() for name in header].index(column)
        return {row[place] for row in rows}

    for table in ("PATIENTS", "ADMISSIONS", "ICUSTAYS", "PRESCRIPTIONS"):
        assert not values(mimic_demo, table, "SUBJECT_ID") & values(synthetic, table, "SUBJECT_ID")
    for table, column in (("ADMISSIONS", "HADM_ID"), ("ICUSTAYS", "ICUSTAY_ID"), ("ADMISSIONS", "DIAGNOSIS")):
        assert not values(mimic_demo, table, column) & values(synthetic, table, column)
