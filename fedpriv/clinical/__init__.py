"""MIMIC-III in: tables, shards, texts, prepared examples, and made-up data to show instead."""

from fedpriv.clinical.mock import write_mock
from fedpriv.clinical.narrative import Narrative, narratives
from fedpriv.clinical.shards import Shard, patients_per_unit, shard_by_care_unit, write_shard
from fedpriv.clinical.store import PreparedData, load_prepared, prepare
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.clinical.tables import ClinicalTables

__all__ = [
    "ClinicalTables",
    "Narrative",
    "PreparedData",
    "Shard",
    "load_prepared",
    "narratives",
    "patients_per_unit",
    "prepare",
    "shard_by_care_unit",
    "write_mock",
    "write_shard",
    "write_synthetic",
]
