from __future__ import annotations

import json

import pytest
from tiny_mimic import read_table

from fedpriv.clinical import ClinicalTables, shard_by_care_unit, write_mock
from fedpriv.errors import ExistsError


def test_mock_is_whole_and_repeatable(tmp_path):
    write_mock(tmp_path / "a", seed=1)
    write_mock(tmp_path / "b", seed=1)
    a, b = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.*") if p.is_file()}
        for f in (tmp_path / "a", tmp_path / "b")
    )
    assert a == b
    schema = json.loads((tmp_path / "a" / "schema.json").read_text())
    examples = [json.loads(line) for line in (tmp_path / "a" / "examples.jsonl").read_bytes().splitlines()]
    assert schema["synthetic"] is True
    assert len(examples) == schema["examples"]["count"] >= 24
    assert all(set(example) == {"text", "patient"} for example in examples)
    for table in schema["tables"].values():
        assert read_table(tmp_path / "a" / table["file"])[0] == table["columns"]
    with ClinicalTables.open(tmp_path / "a" / "tables") as tables:
        assert len(shard_by_care_unit(tables, 3)) == 3
    with pytest.raises(ExistsError):
        write_mock(tmp_path / "a", seed=1)


def test_nothing_of_the_real_demo_is_in_it(mimic_demo, tmp_path):
    write_mock(tmp_path / "mock", seed=0)
    texts = (tmp_path / "mock" / "examples.jsonl").read_text(encoding="utf-8")
    header, *rows = read_table(mimic_demo / "ADMISSIONS.csv.gz")
    subject, hadm = header.index("subject_id"), header.index("hadm_id")
    for row in rows:
        assert row[subject] not in texts
        assert row[hadm] not in texts
