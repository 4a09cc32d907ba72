from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.aggregation import (
    MemberFacts,
    factors,
    fedavg,
    limited,
    paper,
    paper_reciprocal,
    shares,
    uniform,
    weights_for,
)
from fedpriv.errors import StudyError
from fedpriv.study.aggregation import AggregationChoice


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


def facts():
    """Three domains: a small shard on a fast link that fits badly, a middle one, a large one on a slow link."""
    return {
        "a": MemberFacts(examples=10, loss=4.0, bandwidth=4.0),
        "b": MemberFacts(examples=30, loss=2.0, bandwidth=1.0),
        "c": MemberFacts(examples=60, loss=1.0, bandwidth=0.25),
    }


def chosen(weights, custom=None, **changes):
    return weights_for(AggregationChoice(weights=weights, largest_share=1.0, **changes), facts(), custom)


def test_a_plan_chooses():
    assert chosen("fedavg") == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    assert chosen("uniform") == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert chosen("inverse-loss") == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7})


def test_the_weight_of_the_paper_is_its_formula():
    summed = {"a": 40.0, "b": 60.0, "c": 60.0}  # L_k, over all examples
    omega = {
        "a": summed["a"] / (10 * 4.0**0.5),
        "b": summed["b"] / (30 * 1.0**0.5),
        "c": summed["c"] / (60 * 0.25**0.5),
    }
    assert omega == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert paper(facts(), 0.5) == pytest.approx(omega)
    assert paper(facts(), 0.0) == pytest.approx({"a": 4.0, "b": 2.0, "c": 1.0})
    assert paper(facts(), 1.0) == pytest.approx({"a": 1.0, "b": 2.0, "c": 4.0})
    assert paper_reciprocal(facts(), 1.0) == pytest.approx({"a": 16.0, "b": 2.0, "c": 0.25})
    assert chosen("paper", alpha=1.0) == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7})
    assert chosen("paper-reciprocal", alpha=1.0) == pytest.approx({"a": 16 / 18.25, "b": 2 / 18.25, "c": 0.25 / 18.25})


def test_a_function_of_ones_own_is_held_to_what_a_weight_is():
    assert chosen("custom", lambda known: dict.fromkeys(known, 2)) == pytest.approx(
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    )
    for bad in (
        None,
        lambda known: {},
        lambda known: dict.fromkeys(known, 0.0),
        lambda known: dict.fromkeys(known, "x"),
    ):
        with pytest.raises(StudyError):
            chosen("custom", bad)
    for odd in (float("nan"), float("inf"), -1.0):
        with pytest.raises(StudyError, match="one finite weight over 0"):
            chosen("custom", lambda known, odd=odd: dict.fromkeys(known, odd))


def test_the_limit_holds_for_stale_updates_too():
    known = {"a": MemberFacts(examples=60, loss=1.0), "b": MemberFacts(examples=40, loss=1.0, staleness=3)}
    weights = weights_for(AggregationChoice(), known, discount=lambda tau: (1 + tau) ** -0.5)
    assert weights == pytest.approx({"a": 0.75, "b": 0.25})
    weights = weights_for(AggregationChoice(), known, discount=lambda tau: (1 + tau) ** -2)
    assert weights == pytest.approx({"a": 0.8, "b": 0.2})


@pytest.mark.parametrize("known", [MemberFacts(examples=1, loss=0.0), MemberFacts(examples=1, loss=1.0, bandwidth=0.0)])
def test_what_cannot_be_weighed_is_named(known):
    with pytest.raises(StudyError, match="a has no loss or bandwidth"):
        weights_for(AggregationChoice(weights="paper"), {"a": known})


@given(
    st.dictionaries(st.text("abcd", min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=64),
    st.floats(0.01, 1.0),
)
def test_no_share_is_over_the_limit_and_the_order_stays(weights, largest):
    before = shares(weights)
    after = limited(before, largest)
    assert sum(after.values()) == pytest.approx(1.0)
    limit = max(largest, 1 / len(weights))
    assert all(0 < share <= limit * (1 + 1e-9) for share in after.values())
    ordered = sorted(before, key=before.__getitem__)
    assert [after[m] for m in ordered] == pytest.approx(sorted(after.values()))
    if max(before.values()) <= limit:
        assert after == pytest.approx(before)


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
