from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.aggregation import factors, fedavg, shares, uniform, weights_for
from fedpriv.errors import StudyError
from fedpriv.study.plan import AggregationChoice


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 10**9), min_size=1, max_size=64))
def test_fedavg_is_the_share_of_examples(examples):
    weights = fedavg(examples)
    assert list(weights) == sorted(examples)
    assert abs(sum(weights.values()) - 1) < 1e-12
    total = sum(examples.values())
    for member, weight in weights.items():
        assert 0 < weight <= 1
        assert abs(Fraction(weight) - Fraction(examples[member], total)) < Fraction(1, 10**15)


def test_uniform():
    assert uniform(["b", "a"]) == {"a": 0.5, "b": 0.5}


def test_a_plan_chooses():
    examples = {"a": 1, "b": 3}
    assert weights_for(AggregationChoice(weights="fedavg"), examples) == {"a": 0.25, "b": 0.75}
    assert weights_for(AggregationChoice(weights="uniform"), examples) == {"a": 0.5, "b": 0.5}


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 10**9), min_size=1, max_size=64))
def test_factors_have_a_largest_of_one_and_give_the_same_shares(examples):
    weights = fedavg(examples)
    by_member = factors(weights)
    assert max(by_member.values()) == 1
    assert all(0 < factor <= 1 for factor in by_member.values())
    assert shares(by_member) == pytest.approx(weights)


def test_nobody_has_no_factor():
    with pytest.raises(StudyError):
        factors({})


@pytest.mark.parametrize("examples", [{}, {"a": 0}, {"a": 1, "b": -1}, {"a": True}, {"a": 1.5}])
def test_domains_without_examples_are_refused(examples):
    with pytest.raises(StudyError):
        fedavg(examples)
