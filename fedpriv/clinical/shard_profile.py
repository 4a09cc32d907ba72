"""How shards differ: who their patients are, and how far apart their mixtures are. Small counts are hidden."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv.clinical.admissions import Admission, Coded, one_case, patients
from fedpriv.clinical.labels import chapter_of
from fedpriv.clinical.narrative import full_years
from fedpriv.clinical.rows import Rows
from fedpriv.clinical.shards import Shard
from fedpriv.study.task import ICD9_CHAPTERS

SMALLEST_COUNT = 10
TOP_CHAPTERS = 8

VARIABLES = {
    "age": "age at the first admission (patients)",
    "sex": "sex (patients)",
    "unit": "first care unit (patients)",
    "type": "type of admission (admissions)",
    "death": "death in hospital (admissions)",
    "stay": "length of stay (admissions)",
    "chapters": "most frequent chapters of diagnoses (admissions with one)",
}
_AGES = ((1, "newborn"), (18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (80, "60 to 79"))
_STAYS = ((2, "under 2 days"), (4, "2 to 4"), (8, "4 to 8"), (16, "8 to 16"))
_BANDS = {"age": (_AGES, "80 and over"), "stay": (_STAYS, "16 and more")}


@dataclass(frozen=True)
class ShardProfile:
    """One shard in counts; they are exact, so :func:`shown` is what may be shown of them.

    Attributes
    ----------
    name : str
        The shard.
    patients, admissions : int
        How many.
    counts : dict of str to dict of str to int
        By variable and category, as in :data:`VARIABLES`.
    """

    name: str
    patients: int
    admissions: int
    counts: dict[str, dict[str, int]]


def profiles(tables: Rows, shards: Sequence[Shard]) -> list[ShardProfile]:
    """Return the profile of each shard; every one has the same categories in the same order."""
    shard_of = {subject: place for place, shard in enumerate(shards) for subject in shard.subject_ids}
    counts = [{variable: Counter[str]() for variable in VARIABLES} for _ in shards]
    sizes = [[0, 0] for _ in shards]
    chapters: dict[str, str | None] = {}
    for stays in patients(tables, frozenset({"diagnoses"})):
        place = shard_of.get(stays[0].subject_id)
        if place is None:
            continue
        sizes[place] = [sizes[place][0] + 1, sizes[place][1] + len(stays)]
        _count_patient(counts[place], stays)
        for stay in stays:
            _count_stay(counts[place], stay)
            counts[place]["chapters"].update(_chapters(stay.diagnoses, chapters))
    order = {variable: _order(variable, counts) for variable in VARIABLES}
    return [
        ShardProfile(shard.name, people, stays, {v: {name: found[v][name] for name in order[v]} for v in VARIABLES})
        for shard, (people, stays), found in zip(shards, sizes, counts, strict=True)
    ]


def shown(counts: dict[str, int]) -> dict[str, int | None]:
    """Return counts with None in the place of those under 10, and of the next one where only one would be hidden.

    One hidden count of a variable could be worked out from the others and the number of patients.
    """
    hidden = {name for name, count in counts.items() if count < SMALLEST_COUNT}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: counts[name]))
    return {name: None if name in hidden else count for name, count in counts.items()}


def distance(one: dict[str, int], other: dict[str, int]) -> float:
    """Return the Jensen-Shannon distance of two mixtures over the same categories, 0 (alike) to 1 (nothing in common).

    The square root of the Jensen-Shannon divergence to base 2, which is a metric (Endres and Schindelin 2003). It is 0
    where either has no count at all.
    """
    p, q = (np.array([counts[name] for name in one], dtype=float) for counts in (one, other))
    if not p.sum() or not q.sum():
        return 0.0
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    divergence = sum(float(np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0]))) for x in (p, q)) / 2
    return float(np.sqrt(max(0.0, min(1.0, divergence))))


def distances(found: Sequence[ShardProfile]) -> dict[str, float]:
    """Return for each variable the mean distance over all pairs of shards; nothing for one shard."""
    pairs = list(itertools.combinations(found, 2))
    return {
        variable: float(np.mean([distance(one.counts[variable], other.counts[variable]) for one, other in pairs]))
        for variable in VARIABLES
        if pairs
    }


def _count_patient(counts: dict[str, Counter[str]], stays: Sequence[Admission]) -> None:
    first = stays[0]
    years = full_years(first.dob, first.admitted)
    counts["age"]["unknown" if years is None else _band(years, "age")] += 1
    counts["sex"][{"F": "female", "M": "male"}.get(one_case(first.gender), "unknown")] += 1
    units = sorted((stay.into, stay.unit) for admission in stays for stay in admission.stays if stay.into)
    counts["unit"][units[0][1] if units else "none"] += 1


def _count_stay(counts: dict[str, Counter[str]], stay: Admission) -> None:
    counts["type"][one_case(stay.kind).lower() or "unknown"] += 1
    counts["death"][{True: "died", False: "survived", None: "unknown"}[stay.died]] += 1
    days = None if stay.discharged is None else (stay.discharged - stay.admitted).total_seconds() / 86_400
    counts["stay"]["unknown" if days is None else _band(days, "stay")] += 1


def _chapters(diagnoses: Sequence[Coded], known: dict[str, str | None]) -> set[str]:
    """Return the chapters of one admission by their titles; ``known`` remembers codes."""
    for coded in diagnoses:
        if coded.code not in known:
            known[coded.code] = chapter_of(coded.code)
    return {ICD9_CHAPTERS[chapter] for coded in diagnoses if (chapter := known[coded.code]) is not None}


def _band(value: float, variable: str) -> str:
    bands, last = _BANDS[variable]
    return next((name for limit, name in bands if value < limit), last)


def _order(variable: str, counts: Sequence[dict[str, Counter[str]]]) -> list[str]:
    """Return the categories that occur: bands in their order, others by how frequent they are in all shards."""
    total = sum((found[variable] for found in counts), Counter[str]())
    if variable in _BANDS:
        bands, last = _BANDS[variable]
        return [name for name in (*(name for _, name in bands), last, "unknown") if name in total]
    frequent = sorted(total, key=lambda name: (-total[name], name))
    return frequent[:TOP_CHAPTERS] if variable == "chapters" else frequent
