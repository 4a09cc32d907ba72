"""No update and no sum of any level is larger than what is said to be the most it can have, and none far below."""

import pytest

from fedpriv.protection.container import MAX_HEADER_BYTES
from fedpriv.protection.sizes import most_bytes_of_key
from tests.protection.helpers import make_cohort


@pytest.mark.parametrize("level", ["sealed", "masked", "plain", "ckks", "ckks-tuned"])
@pytest.mark.parametrize("clients", [2, 5])
def test_the_most_that_updates_and_sums_can_have(tmp_path, level, clients):
    cohort = make_cohort(tmp_path, level, clients=clients, tensors={"a": 9000, "b": 300}, bits=8)
    parts = list(cohort.seal_all().values())
    path, _ = cohort.add(parts)
    for file, updates in ((parts[0].path, 0), (path, clients)):
        most = most_bytes_of_key(cohort.key.parameters, 1, 8, updates=updates)
        assert most - MAX_HEADER_BYTES < file.stat().st_size <= most


def test_a_sum_of_fewer_is_no_larger(tmp_path):
    cohort = make_cohort(tmp_path, clients=5)
    path, _ = cohort.add(list(cohort.seal_all().values())[:2])
    assert path.stat().st_size <= most_bytes_of_key(cohort.key.parameters, 1, 10, updates=2)
