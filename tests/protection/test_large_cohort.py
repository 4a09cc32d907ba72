"""The largest cohort that a plan may have: 256 members really seal, and what opens is exactly what they sent."""

import functools
import itertools
import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedpriv.errors import ProtectionError
from fedpriv.protection import MaskSource, make_study_key
from fedpriv.study.plan import MAX_COHORT
from fedpriv.study.protection_choice import ProtectionChoice
from tests.protection.helpers import CLIP, STUDY, Cohort, make_cohort

TENSORS = {"a": 180, "b": 20}


class _Random(dict):
    def __missing__(self, key):
        return self.setdefault(key, os.urandom(32))


@dataclass
class Sources(Cohort):
    """The members' masks, made once and from random secrets: 65,000 key agreements would take longer than all else."""

    pairs: dict[frozenset[str], bytes] = field(default_factory=_Random)

    def masks(self, email, members=None):
        return self._masks(email)

    @functools.cache  # noqa: B019  the cohort lives as long as its test
    def _masks(self, email):
        secrets = {other: self.pairs[frozenset([email, other])] for other in self.members if other != email}
        return MaskSource(email, study=STUDY, own=os.urandom(32), secrets=secrets)

    def __hash__(self):
        return id(self)


def levels(cohort, values):
    """Return what values in units of a parameter are as integers, which a float32 sum still tells apart here."""
    half = 2 ** (cohort.protection.bits - 1) - 1
    return np.rint(values.astype(np.float64) / CLIP * half).astype(np.int64)


@pytest.mark.parametrize(
    "case",
    [("sealed", 10, "tc192", True, 0), ("sealed", 16, "tc256", False, 127)],
)
def test_sums_of_256_updates_are_exact(tmp_path, case):
    """With every value at its largest no digit carries; with nearly half the members gone their masks come off."""
    level, bits, security, extreme, dropped = case
    cohort = make_cohort(tmp_path, level, clients=MAX_COHORT, bits=bits, tensors=TENSORS, security=security)
    cohort = Sources(**vars(cohort))
    rng = np.random.default_rng(3)
    parts = []
    for email in cohort.members[dropped:]:
        update = rng.normal(0, CLIP / 3, cohort.size).astype(np.float32)
        if extreme:
            update[:100], update[100:] = 2 * CLIP, -2 * CLIP
        parts.append(cohort.seal(email, update, weight=1.0))
    path, digest = cohort.add(parts)
    opened = cohort.open(path, cohort.manifest(parts, digest))
    expected = np.sum([levels(cohort, part.sent) for part in parts], axis=0)
    np.testing.assert_array_equal(levels(cohort, opened.sum), expected)
    if extreme:
        assert set(np.abs(expected)) == {(2 ** (bits - 1) - 1) * len(parts)}
        assert len(parts) == MAX_COHORT - dropped


def test_a_key_for_more_than_the_largest_cohort_is_refused():
    for level, clients in itertools.product(("sealed", "masked"), (MAX_COHORT + 1, 1000)):
        with pytest.raises(ProtectionError, match="can be planned"):
            make_study_key(ProtectionChoice(level=level), tensors=TENSORS, clients=clients, study=STUDY)


def test_tuned_ckks_is_refused_before_a_sum_could_wrap():
    choice = ProtectionChoice(level="ckks-tuned")
    make_study_key(choice, tensors=TENSORS, clients=127, study=STUDY)
    with pytest.raises(ProtectionError, match="modulus"):
        make_study_key(choice, tensors=TENSORS, clients=128, study=STUDY)
