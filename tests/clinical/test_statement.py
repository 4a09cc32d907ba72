from __future__ import annotations

import pytest

from fedpriv.clinical import Telling, prepare_examples
from fedpriv.clinical.harmonize import harmonize
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.statement import needed_columns, schema_digest, state_shard, task_digest
from fedpriv.study.shard import differences
from fedpriv.study.task import TaskChoice


def stated(tables, store, task=None):
    task = task or TaskChoice()
    record = harmonize(str(tables), store)
    prepared = prepare_examples(record, store, Telling(task=task))
    return state_shard("a@x.org", "mimic-iii", record.tally, prepared, task=task, files={})


def test_a_statement_tells_columns_and_coarse_counts(synthetic, tmp_path):
    told = stated(synthetic, tmp_path)
    assert set(told.tables) == set(SPECS)
    assert "text" in told.tables["NOTEEVENTS"]
    assert "iserror" not in told.tables["NOTEEVENTS"]
    assert (told.patients, told.admissions) == (240, 270)
    assert told.schema_sha256 == schema_digest()
    assert told.task_sha256 == task_digest(TaskChoice(), {})


def test_shards_without_notes_do_not_agree_with_those_that_have_them(synthetic, make_tables, tmp_path):
    other = stated(make_tables(), tmp_path / "b")
    both = {"a": stated(synthetic, tmp_path / "a"), "b": other}
    assert differences(both, needed_columns(TaskChoice(), {})) == ["b without NOTEEVENTS, which a has"]
    assert differences(both, needed_columns(TaskChoice(notes=()), {})) == []


@pytest.mark.parametrize("kind", ["language_modelling", "mortality", "icd9_chapters", "readmission"])
def test_what_a_task_reads_is_in_the_record(kind):
    needed = needed_columns(TaskChoice(kind=kind), {})
    for table, columns in needed.items():
        assert set(columns) <= {column.name for column in SPECS[table].needed}
    assert "NOTEEVENTS" in needed
    assert "NOTEEVENTS" not in needed_columns(TaskChoice(kind=kind, notes=()), {})


def test_another_template_is_another_task():
    task = TaskChoice(template="own.txt")
    assert task_digest(task, {"own.txt": "{person}."}) != task_digest(task, {"own.txt": "{they}."})
