from __future__ import annotations

import gzip
import json
import re

import pytest
from tiny_mimic import read_table

from fedpriv.clinical import ClinicalTables, shard_by_care_unit, write_mock
from fedpriv.errors import ExistsError
from fedpriv.study import TaskChoice


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


@pytest.mark.parametrize("kind", ["mortality", "icd9_chapters", "readmission"])
def test_a_task_s_mock_has_its_questions_and_both_answers(tmp_path, kind):
    task = TaskChoice(kind=kind, template="own.txt")
    write_mock(tmp_path / "mock", seed=0, task=task, files={"own.txt": "Here: {person}, {problem}.\n\n{notes}"})
    examples = [json.loads(line) for line in (tmp_path / "mock" / "examples.jsonl").read_bytes().splitlines()]
    schema = json.loads((tmp_path / "mock" / "schema.json").read_text())
    assert schema["task"] == kind
    assert all(set(example) == set(schema["examples"]["fields"]) for example in examples)
    assert {tuple(example["questions"]) for example in examples} == {task.questions}
    assert all(example["text"].startswith("Here: ") for example in examples)
    cut = len(examples) * 4 // 5  # as a dry run divides them
    for side in (examples[:cut], examples[cut:]):
        assert {answer for example in side for answer in example["answers"]} == {"yes", "no"}


def test_nothing_of_the_real_demo_is_in_it(mimic_demo, tmp_path):
    """No identifier, no time and no longer free text of the demo, in the examples of any task and in the tables."""
    for kind in ("language_modelling", "readmission"):
        write_mock(tmp_path / kind, seed=0, task=TaskChoice(kind=kind))
    mock = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in sorted(tmp_path.rglob("*.*"))
        if path.is_file()
    ).decode()
    words = set(re.findall(r"\d+", mock))
    for table in ("ADMISSIONS", "ICUSTAYS", "PATIENTS"):
        header, *rows = read_table(mimic_demo / f"{table}.csv.gz")
        for row in rows:
            fields = dict(zip(header, row, strict=True))
            assert not words & {fields[name] for name in fields if name.endswith("_id") and name != "row_id"} - {""}
            times = [value for value in row if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value)]
            assert not [value for value in times if value in mock and not value.endswith("00:00:00")]
            told = fields.get("diagnosis", "")
            assert len(told) < 25 or (told not in mock and told.lower() not in mock)
