"""Shards that differ as much as an experiment wants: by a label, with proportions from a Dirichlet distribution."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedpriv.clinical.rows import Rows
from fedpriv.clinical.shards import Shard, numbered, refuse_small
from fedpriv.errors import DataError

ShardLabel = Literal["mortality", "admission-type", "care-unit"]

_LABELS: dict[str, str] = {
    "mortality": """
        SELECT subject_id, CASE WHEN max(coalesce(hospital_expire_flag, 0)) = 1 THEN 'died' ELSE 'survived' END
        FROM admissions GROUP BY subject_id ORDER BY subject_id""",
    "admission-type": """
        SELECT subject_id, coalesce(upper(trim(admission_type)), '') FROM admissions
        QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY admittime, hadm_id) = 1 ORDER BY subject_id""",
    "care-unit": """
        SELECT subject_id, coalesce(upper(trim(first_careunit)), '') FROM admissions LEFT JOIN icustays
        USING (subject_id, hadm_id)
        QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY intime NULLS LAST, icustay_id) = 1
        ORDER BY subject_id""",
}


def shard_by_dirichlet(tables: Rows, domains: int, *, alpha: float, label: ShardLabel, seed: int = 0) -> list[Shard]:
    """Divide all patients into shards of the same size whose mixtures of a label are drawn from Dirichlet(alpha * p).

    As in Hsu, Qi and Brown (2019, arXiv 1909.06335): ``p`` is the mixture of all patients, each shard draws its own
    from ``Dirichlet(alpha * p)``, and takes patients of the labels so drawn, without replacement. A large ``alpha``
    makes shards alike; towards 0 each has one label. The shards take turns, so that what is short is short for all;
    a label that has run out is drawn no more.

    Parameters
    ----------
    tables : Rows
        The tables to divide; nothing is written.
    domains : int
        How many shards.
    alpha : float
        Above 0, to 1,000,000.
    label : {"mortality", "admission-type", "care-unit"}
        Of a patient: death in any stay; type of the first admission; unit of the first ICU stay.
    seed : int
        The same seed draws the same shards.

    Raises
    ------
    DataError
        If ``alpha`` is out of range, all patients have one label, or a shard would have fewer than 5 patients.
    """
    if not 0 < alpha <= 1e6:
        raise DataError(f"alpha is {alpha}", todo="choose a number above 0, to 1000000, such as 0.5")
    by_label: dict[str, list[int]] = {}
    for subject, value in tables.rows(_LABELS[label]):
        by_label.setdefault(value, []).append(subject)
    patients = sum(map(len, by_label.values()))
    refuse_small(patients, domains)
    if len(by_label) < 2:
        raise DataError(f"All patients have the same {label}", kept="Nothing was written", todo="use another --label")
    draw = np.random.default_rng(seed)
    pools = [draw.permutation(by_label[value]).tolist() for value in sorted(by_label)]
    shares = np.array([len(pool) for pool in pools]) / patients
    mixtures = draw.dirichlet(np.maximum(alpha * shares, 1e-6), size=domains)
    members: list[list[int]] = [[] for _ in range(domains)]
    for turn in range(patients):
        members[turn % domains].append(pools[_label(draw, mixtures[turn % domains], pools)].pop())
    return [numbered(place, found) for place, found in enumerate(members)]


def _label(draw: np.random.Generator, mixture: np.ndarray, pools: list[list[int]]) -> int:
    """Draw the place of a label that has patients left: by a mixture (labels,), or else by how many are left."""
    left = np.array([len(pool) for pool in pools], dtype=float)
    weights = np.where(left > 0, mixture, 0.0)
    weights = weights if weights.sum() > 1e-12 else left
    return int(draw.choice(len(pools), p=weights / weights.sum()))
