"""A mapped domain's examples are those of the same patients in MIMIC-III, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedpriv.clinical import (
    ClinicalTables,
    load_mapping,
    prepare,
    shard_by_care_unit,
    write_in_ccu_schema,
    write_shard,
)
from fedpriv.clinical.mapping import TableMapping
from fedpriv.clinical.schema import SPECS

CCU = Path(__file__).parents[2] / "domains" / "ccu" / "mapping.yaml"


@pytest.fixture(params=["synthetic", "mimic_demo"])
def both(request, tmp_path) -> tuple[Path, Path]:
    """The same patients in the schema of MIMIC-III and in that of the ccu."""
    mimic = request.getfixturevalue(request.param)
    with ClinicalTables.open(mimic) as tables:
        write_in_ccu_schema(tables, tmp_path / "ccu")
    return mimic, tmp_path / "ccu"


def test_the_examples_are_the_same_in_both_schemas(both, tmp_path):
    mimic, ccu = both
    expected = prepare(mimic, tmp_path / "one")
    prepared = prepare(ccu, tmp_path / "two", mapping=load_mapping(CCU))
    assert prepared.train.read_bytes() == expected.train.read_bytes()
    assert prepared.heldout.read_bytes() == expected.heldout.read_bytes()


def test_shards_of_mapped_tables_are_mimic_tables(both, tmp_path):
    mimic, ccu = both
    with ClinicalTables.open(mimic) as tables:
        (expected, *_) = shard_by_care_unit(tables, 1)
        write_shard(tables, expected, tmp_path / "expected")
    with ClinicalTables.open(ccu, load_mapping(CCU)) as tables:
        assert shard_by_care_unit(tables, 1) == [expected]
        write_shard(tables, expected, tmp_path / "mapped")
    one, two = (prepare(tmp_path / name, tmp_path / "store") for name in ("expected", "mapped"))
    assert one.train.read_bytes() == two.train.read_bytes()
    assert one.heldout.read_bytes() == two.heldout.read_bytes()


def test_the_documentation_names_every_table_and_column():
    text = (CCU.parents[2] / "docs" / "mapping.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for spec in SPECS.values():
        told = re.findall(r"`(\w+)`(\\\*)?", rows[spec.name])[1:]
        assert [(name, bool(star)) for name, star in told] == [(column.name, column.filled) for column in spec.needed]
        assert ("may be left out" in rows[spec.name]) == spec.optional
    for setting in TableMapping.model_fields:
        assert setting in rows
