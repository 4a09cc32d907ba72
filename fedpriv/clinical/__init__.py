"""MIMIC-III in: tables, mappings to them, shards, texts, prepared examples, and made-up data to show instead."""

from fedpriv.clinical.ccu_schema import write_in_ccu_schema
from fedpriv.clinical.examples import Example, examples, narratives
from fedpriv.clinical.mapping import SchemaMapping, load_mapping
from fedpriv.clinical.mock import write_mock
from fedpriv.clinical.record import Record
from fedpriv.clinical.shards import Shard, patients_per_unit, shard_by_care_unit, write_shard
from fedpriv.clinical.store import PreparedData, Telling, load_prepared, prepare, prepare_examples
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.clinical.tables import ClinicalTables

__all__ = [
    "ClinicalTables",
    "Example",
    "PreparedData",
    "Record",
    "SchemaMapping",
    "Shard",
    "Telling",
    "examples",
    "load_mapping",
    "load_prepared",
    "narratives",
    "patients_per_unit",
    "prepare",
    "prepare_examples",
    "shard_by_care_unit",
    "write_in_ccu_schema",
    "write_mock",
    "write_shard",
    "write_synthetic",
]
