from __future__ import annotations

import json

import pytest
from tiny_mimic import tiny_tables

from fedpriv.clinical import (
    ClinicalTables,
    Telling,
    load_prepared,
    narratives,
    prepare,
    shard_by_care_unit,
    write_shard,
)
from fedpriv.errors import DataError


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def in_store(store):
    return [entry.name for entry in store.iterdir()]


def test_prepared_twice_is_the_same_folder(synthetic, tmp_path):
    store = tmp_path / "state" / "data"
    first = prepare(synthetic, store)
    assert prepare(synthetic, store) == first == load_prepared(first.folder)
    assert [entry for entry in in_store(store) if entry != "told" and "record-" not in entry] == [first.digest]
    assert sorted(entry.name for entry in first.folder.iterdir()) == ["heldout.jsonl", "manifest.json", "train.jsonl"]
    assert (first.patients, first.heldout_patients) == (192, 48)
    for entry in first.folder.iterdir():
        assert entry.stat().st_mode & 0o777 == 0o600
    assert first.folder.stat().st_mode & 0o777 == store.stat().st_mode & 0o777 == 0o700


def test_lines_hold_text_and_whose_it_is_and_every_admission_once(synthetic, tmp_path):
    prepared = prepare(synthetic, tmp_path)
    train, heldout = lines(prepared.train), lines(prepared.heldout)
    assert (len(train), len(heldout)) == (prepared.examples, prepared.heldout_examples)
    assert all(set(line) == {"text", "patient"} for line in train + heldout)
    with ClinicalTables.open(synthetic) as tables:
        subjects = {narrative.text: narrative.subject_id for narrative in narratives(tables)}
    assert sorted(line["text"] for line in train + heldout) == sorted(subjects)
    for side, patients in ((train, prepared.patients), (heldout, prepared.heldout_patients)):
        numbers = [line["patient"] for line in side]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(patients))
        assert len({(line["patient"], subjects[line["text"]]) for line in side}) == patients


def test_seed_fraction_and_dataset_change_the_digest(synthetic, tmp_path):
    variants = [{}, {"seed": 1}, {"heldout_fraction": 0.5}, {"dataset": "other"}]
    assert len({prepare(synthetic, tmp_path, telling=Telling(**variant)).digest for variant in variants}) == len(
        variants
    )


def test_empty_shard_and_wrong_fraction(make_tables, tmp_path):
    one = {
        name: [row for row in rows if len(row) < 2 or row[1] not in ("12", "13")]
        for name, rows in tiny_tables().items()
    }
    with pytest.raises(DataError, match="empty shard"):
        prepare(make_tables(**one), tmp_path / "store")
    assert all("record" in entry for entry in in_store(tmp_path / "store"))
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="heldout_fraction"):
            prepare(tmp_path, tmp_path / "store", telling=Telling(heldout_fraction=fraction))


def test_what_a_killed_process_left_is_removed(make_tables, tmp_path):
    left = tmp_path / "store" / ".abc.1.tmp"
    left.mkdir(parents=True)
    (left / "train.jsonl").touch()
    prepared = prepare(make_tables(), tmp_path / "store")
    assert [entry for entry in in_store(tmp_path / "store") if entry != "told" and "record-" not in entry] == [
        prepared.digest
    ]


def test_store_that_is_a_file(make_tables, tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(DataError, match="cannot be written"):
        prepare(make_tables(), tmp_path / "store")


@pytest.mark.parametrize("name", ["train.jsonl", "heldout.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["changed", "removed", "cut"])
def test_damage_is_found(make_tables, tmp_path, name, damage):
    prepared = prepare(make_tables(), tmp_path / "store")
    path = prepared.folder / name
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif name == "manifest.json" and damage == "changed":
        path.write_bytes(data.replace(b'"seed": 0', b'"seed": 1'))
    else:
        path.write_bytes(data[:-3] if damage == "cut" else data.replace(b"e", b"i", 1))
    with pytest.raises(DataError):
        load_prepared(prepared.folder)


def test_real_demo_shards_prepare(mimic_demo, tmp_path):
    with ClinicalTables.open(mimic_demo) as tables:
        for shard in shard_by_care_unit(tables, 3):
            write_shard(tables, shard, tmp_path / shard.name)
            prepared = prepare(tmp_path / shard.name, tmp_path / "store")
            assert prepared.patients + prepared.heldout_patients == len(shard.subject_ids)
            assert prepared.heldout_examples >= prepared.heldout_patients >= 2
