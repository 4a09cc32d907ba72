"""Shards: the patients of one care unit, as one data owner's share of the tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.staging import staged_folder, write_csv_gz
from fedpriv.clinical.tables import ClinicalTables
from fedpriv.errors import DataError

MINIMUM_PATIENTS = 5
"""A smaller shard could not be split for evaluation, and its sums would say too much about each patient."""

_FIRST_UNITS = """
    SELECT subject_id, unit FROM (
        SELECT subject_id, upper(trim(first_careunit)) AS unit,
               row_number() OVER (PARTITION BY subject_id ORDER BY intime, icustay_id) AS place
        FROM icustays)
    WHERE place = 1"""


@dataclass(frozen=True)
class Shard:
    """One domain's patients.

    Attributes
    ----------
    name : str
        The care unit as a slug, such as ``"micu"``.
    care_unit : str
        The care unit as in ICUSTAYS, such as ``"MICU"``.
    subject_ids : tuple of int
        The patients, ascending.
    """

    name: str
    care_unit: str
    subject_ids: tuple[int, ...]


def patients_per_unit(tables: ClinicalTables) -> dict[str, int]:
    """Return the number of patients by the care unit of their first ICU stay, most first, ties by name."""
    sql = f"SELECT unit, count(*) AS n FROM ({_FIRST_UNITS}) GROUP BY unit ORDER BY n DESC, unit"  # noqa: S608
    return dict(tables.rows(sql))


def shard_by_care_unit(tables: ClinicalTables, domains: int) -> list[Shard]:
    """Divide the patients among the ``domains`` largest care units.

    A patient belongs to the FIRST_CAREUNIT of their earliest ICU stay (ties by ICUSTAY_ID) with all admissions, so no
    patient is in two shards. Patients of other units, or without an ICU stay, are in none.

    Parameters
    ----------
    tables : ClinicalTables
        The tables to divide; nothing is written.
    domains : int
        How many shards, at least 1.

    Returns
    -------
    list of Shard
        Largest first, ties by the unit's name.

    Raises
    ------
    DataError
        If there are too few care units, or one would give a shard of fewer than 5 patients.
    """
    if domains < 1:
        raise DataError(f"{domains} domains cannot share the tables", todo="use --domains 1 or more")
    counts = patients_per_unit(tables)
    usable = sum(1 for count in counts.values() if count >= MINIMUM_PATIENTS)
    if usable < domains:
        found = ", ".join(f"{unit} {count}" for unit, count in counts.items()) or "no ICU stay"
        raise DataError(
            f"ICUSTAYS gives {usable} care unit(s) of at least {MINIMUM_PATIENTS} patients for {domains} domains"
            f" (patients by first care unit: {found})",
            kept="Nothing was written",
            todo=f"use --domains {usable}" if usable else "use tables with more patients",
        )
    sql = f"SELECT subject_id FROM ({_FIRST_UNITS}) WHERE unit = $unit ORDER BY subject_id"  # noqa: S608
    shards = [
        Shard(_slug(unit), unit, tuple(row[0] for row in tables.rows(sql, {"unit": unit})))
        for unit in list(counts)[:domains]
    ]
    if len({shard.name for shard in shards}) < domains:
        raise DataError(f"Two care units have the same name as folder ({', '.join(s.name for s in shards)})")
    return shards


def write_shard(tables: ClinicalTables, shard: Shard, folder: Path) -> None:
    """Write the tables again with only the rows of ``shard``'s patients, the titles whole, headers as found.

    Parameters
    ----------
    tables : ClinicalTables
        The tables that the shard was made of.
    shard : Shard
        Whose rows to write.
    folder : Path
        A new or empty folder; the files are ``NAME.csv.gz``, for their owner only, the same bytes every time.

    Raises
    ------
    ExistsError
        If ``folder`` is not empty.
    DataError
        If a table cannot be read or written.
    """
    with staged_folder(folder) as temporary:
        for name in (name for name in sorted(SPECS) if tables.has(name)):
            whole = name.startswith("D_")
            rows = tables.raw_rows(name, None if whole else shard.subject_ids)
            write_csv_gz(temporary / f"{name}.csv.gz", tables.source_columns(name), rows)


def _slug(unit: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", unit.lower()).strip("-")[:48] or "unit"
