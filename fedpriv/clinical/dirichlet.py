"""Shards that differ as much as an experiment wants: by a label, with proportions from a Dirichlet distribution."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedpriv.clinical.rows import Rows
from fedpriv.clinical.shards import Shard, numbered, refuse_small
from fedpriv.errors import DataError

ShardLabel = Literal["mortality", "admission-type", "care-unit"]

_NOTHING = 1e-9
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
    makes shards alike; towards 0 each has one label at a time. The shards take turns, so that what is short is short
    for all; one whose labels have run out draws a new mixture, around that of the patients who are left.

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
    mixtures = [_mixture(draw, alpha * shares) for _ in range(domains)]
    members: list[list[int]] = [[] for _ in range(domains)]
    for turn in range(patients):
        place = turn % domains
        left = np.array([len(pool) for pool in pools], dtype=float)
        if not mixtures[place][left > 0].sum() > _NOTHING:
            mixtures[place] = _mixture(draw, alpha * left / left.sum())
        weights = np.where(left > 0, mixtures[place], 0.0)
        members[place].append(pools[int(draw.choice(len(pools), p=weights / weights.sum()))].pop())
    return [numbered(place, found) for place, found in enumerate(members)]


def _mixture(draw: np.random.Generator, concentration: np.ndarray) -> np.ndarray:
    """Draw a mixture (labels,) from a Dirichlet distribution; a label without concentration has none of it."""
    there = concentration > 0
    mixture = np.zeros(len(concentration))
    mixture[there] = draw.dirichlet(np.maximum(concentration[there], _NOTHING))
    return mixture
