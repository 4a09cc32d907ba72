"""Shards: some of the patients, as one data owner's share of the tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.clinical.rows import Rows
from fedpriv.clinical.schema import SPECS
from fedpriv.clinical.staging import staged_folder, write_csv_gz
from fedpriv.clinical.tables import ClinicalTables
from fedpriv.errors import DataError
from fedpriv.files import sha256_hex

MINIMUM_PATIENTS = 5
"""A smaller shard could not be split for evaluation, and its sums would say too much about each patient."""

_FIRST_UNITS = """
    SELECT subject_id, unit FROM (
        SELECT subject_id, upper(trim(first_careunit)) AS unit,
               row_number() OVER (PARTITION BY subject_id ORDER BY intime, icustay_id) AS place
        FROM icustays)
    WHERE place = 1"""
_FIRST_TYPES = """
    SELECT subject_id, upper(trim(admission_type)) FROM admissions
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY admittime, hadm_id) = 1"""


@dataclass(frozen=True)
class Shard:
    """One domain's patients.

    Attributes
    ----------
    name : str
        A folder's name, such as ``"micu"``.
    words : str
        Whose patients they are, such as ``"MICU"``, a care unit as in ICUSTAYS.
    subject_ids : tuple of int
        The patients, ascending.
    """

    name: str
    words: str
    subject_ids: tuple[int, ...]


def patients_per_unit(tables: Rows) -> dict[str, int]:
    """Return the number of patients by the care unit of their first ICU stay, most first, ties by name."""
    sql = f"SELECT unit, count(*) AS n FROM ({_FIRST_UNITS}) GROUP BY unit ORDER BY n DESC, unit"  # noqa: S608
    return dict(tables.rows(sql))


def shard_by_care_unit(tables: Rows, domains: int) -> list[Shard]:
    """Divide the patients among the ``domains`` largest care units.

    A patient belongs to the FIRST_CAREUNIT of their earliest ICU stay (ties by ICUSTAY_ID) with all admissions, so no
    patient is in two shards. Patients of other units, or without an ICU stay, are in none.

    Parameters
    ----------
    tables : Rows
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
    return _largest(dict(tables.rows(_FIRST_UNITS)), domains, table="ICUSTAYS", what="care unit", none="no ICU stay")


def shard_by_admission_type(tables: Rows, domains: int) -> list[Shard]:
    """Divide the patients among the ``domains`` most frequent types of a patient's first admission.

    As :func:`shard_by_care_unit` otherwise.
    """
    types = {subject: kind for subject, kind in tables.rows(_FIRST_TYPES) if kind}
    return _largest(types, domains, table="ADMISSIONS", what="admission type", none="no admission type")


def shard_by_hash(tables: Rows, domains: int, *, seed: int = 0) -> list[Shard]:
    """Divide all patients into shards of the same size, in the order of SHA-256 of seed and id: alike but for chance.

    Raises
    ------
    DataError
        If a shard would have fewer than 5 patients.
    """
    subjects = [row[0] for row in tables.rows("SELECT DISTINCT subject_id FROM admissions")]
    refuse_small(len(subjects), domains)
    ordered = sorted(subjects, key=lambda subject: sha256_hex(f"{seed}:{subject}".encode()))
    return [numbered(place, ordered[place::domains]) for place in range(domains)]


def in_no_shard(tables: Rows, shards: Sequence[Shard]) -> int:
    """Return how many patients with an admission are in none of the shards."""
    known = {subject for shard in shards for subject in shard.subject_ids}
    return sum(row[0] not in known for row in tables.rows("SELECT DISTINCT subject_id FROM admissions"))


def numbered(place: int, subjects: Iterable[int]) -> Shard:
    """Return a shard that is known by its number only, counted from 1."""
    return Shard(f"part-{place + 1}", f"part {place + 1}", tuple(sorted(subjects)))


def refuse_small(patients: int, domains: int) -> None:
    """Refuse to divide ``patients`` evenly where a shard would be too small.

    Raises
    ------
    DataError
        If one would have fewer than 5 patients.
    """
    if domains < 1 or patients // domains < MINIMUM_PATIENTS:
        usable = patients // MINIMUM_PATIENTS
        raise DataError(
            f"{patients} patients cannot be divided among {domains} domains with at least {MINIMUM_PATIENTS} each",
            kept="Nothing was written",
            todo=f"use --domains {usable} or fewer" if usable else "use tables with more patients",
        )


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


def _largest(group_of: dict[int, str], domains: int, *, table: str, what: str, none: str) -> list[Shard]:
    """Return the patients of the ``domains`` largest groups, each group a shard."""
    if domains < 1:
        raise DataError(f"{domains} domains cannot share the tables", todo="use --domains 1 or more")
    counts = dict(sorted(Counter(group_of.values()).items(), key=lambda item: (-item[1], item[0])))
    usable = sum(count >= MINIMUM_PATIENTS for count in counts.values())
    if usable < domains:
        found = ", ".join(f"{group} {count}" for group, count in counts.items()) or none
        raise DataError(
            f"{table} gives {usable} {what}(s) of at least {MINIMUM_PATIENTS} patients for {domains} domains"
            f" (patients by first {what}: {found})",
            kept="Nothing was written",
            todo=f"use --domains {usable}" if usable else "use tables with more patients",
        )
    members: dict[str, list[int]] = {group: [] for group in list(counts)[:domains]}
    for subject, group in sorted(group_of.items()):
        if group in members:
            members[group].append(subject)
    shards = [Shard(_slug(group), group, tuple(subjects)) for group, subjects in members.items()]
    if len({shard.name for shard in shards}) < domains:
        raise DataError(f"Two {what}s have the same name as folder ({', '.join(s.name for s in shards)})")
    return shards


def _slug(unit: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", unit.lower()).strip("-")[:48] or "unit"
