from __future__ import annotations

import pytest
from tiny_mimic import read_table

from fedpriv.clinical import ClinicalTables, Shard, patients_per_unit, shard_by_care_unit, write_shard
from fedpriv.errors import DataError, ExistsError


def test_first_unit_is_that_of_the_earliest_stay(make_tables):
    with ClinicalTables.open(make_tables()) as tables:
        assert patients_per_unit(tables) == {"CCU": 1, "MICU": 1, "SICU": 1}


def test_shards_are_disjoint_and_cover(synthetic):
    with ClinicalTables.open(synthetic) as tables:
        shards = shard_by_care_unit(tables, 5)
        everyone = {row[0] for row in tables.rows("SELECT subject_id FROM patients")}
    sizes = [len(shard.subject_ids) for shard in shards]
    assert [shard.name for shard in shards] == ["micu", "sicu", "ccu", "csru", "tsicu"]
    assert sizes == sorted(sizes, reverse=True)
    assert set().union(*(shard.subject_ids for shard in shards)) == everyone
    assert sum(sizes) == len(everyone)


def test_too_many_domains_says_what_was_found(make_tables, synthetic):
    with ClinicalTables.open(make_tables()) as tables, pytest.raises(DataError, match=r"CCU 1, MICU 1, SICU 1") as few:
        shard_by_care_unit(tables, 2)
    assert "more patients" in few.value.todo
    with ClinicalTables.open(synthetic) as tables:
        with pytest.raises(DataError) as many:
            shard_by_care_unit(tables, 6)
        with pytest.raises(DataError):
            shard_by_care_unit(tables, 0)
    assert many.value.todo == "use --domains 5"


@pytest.mark.parametrize("unit", ["micu", "ccu"])
def test_written_shard_holds_exactly_its_rows(synthetic, tmp_path, unit):
    with ClinicalTables.open(synthetic) as tables:
        shard = next(shard for shard in shard_by_care_unit(tables, 3) if shard.name == unit)
        write_shard(tables, shard, tmp_path / "a")
        write_shard(tables, shard, tmp_path / "b")
        with pytest.raises(ExistsError):
            write_shard(tables, shard, tmp_path / "a")
    wanted = {str(subject) for subject in shard.subject_ids}
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        header, *rows = read_table(synthetic / path.name)
        if "SUBJECT_ID" in header:
            rows = [row for row in rows if row[header.index("SUBJECT_ID")] in wanted]
        assert read_table(path) == [header, *rows]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_headers_are_kept_as_found(make_tables, tmp_path):
    folder = make_tables(upper=False)
    with ClinicalTables.open(folder) as tables:
        write_shard(tables, Shard("sicu", "SICU", (12,)), tmp_path / "out")
    assert read_table(tmp_path / "out" / "PATIENTS.csv.gz") == [
        ["row_id", "subject_id", "gender", "dob"],
        ["2", "12", "M", "2080-06-01 00:00:00"],
    ]
    with ClinicalTables.open(tmp_path / "out") as tables:
        assert tables.count("ADMISSIONS") == 2


def test_failed_shard_leaves_nothing(make_tables, tmp_path):
    folder = make_tables()
    path = folder / "PRESCRIPTIONS.csv.gz"
    with ClinicalTables.open(folder) as tables:
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(DataError, match="PRESCRIPTIONS"):
            write_shard(tables, Shard("sicu", "SICU", (12,)), tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tables"]


def test_real_demo_in_three(mimic_demo, tmp_path):
    with ClinicalTables.open(mimic_demo) as tables:
        shards = shard_by_care_unit(tables, 3)
        for shard in shards:
            write_shard(tables, shard, tmp_path / shard.name)
    assert [(shard.name, len(shard.subject_ids)) for shard in shards] == [("micu", 54), ("sicu", 20), ("ccu", 12)]
    admitted = [{row[1] for row in read_table(tmp_path / s.name / "ADMISSIONS.csv.gz")[1:]} for s in shards]
    assert not admitted[0] & admitted[1]
    assert not (admitted[0] | admitted[1]) & admitted[2]
