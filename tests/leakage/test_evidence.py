"""Evidence is highest for what is in the rows, none for what is known, and says nothing where there is nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.leakage.evidence import MOST, Evidence

WIDTH = 40


def case(seed, inputs, rows):
    rng = np.random.default_rng(seed)
    there, others = rng.normal(size=(inputs, WIDTH)), rng.normal(size=(60, WIDTH))
    return there, others, Evidence.of(rng.normal(size=(rows, inputs)) @ there, 1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_with_as_many_rows_as_inputs_what_is_there_lies_in_their_span(seed, inputs):
    there, others, evidence = case(seed, inputs, inputs + 2)
    np.testing.assert_allclose(evidence.gains(there), -np.log1p(-MOST), rtol=1e-3)
    assert evidence.gains(others).max() < -np.log1p(-MOST) / 2


def test_with_more_inputs_than_rows_what_is_there_still_stands_out():
    gains = []
    for seed in range(20):
        there, others, evidence = case(seed, 10, 5)
        gains.append((evidence.gains(there).mean(), evidence.gains(others).mean()))
    inside, outside = np.mean(gains, axis=0)
    assert inside > 2 * outside


@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_once_all_is_known_nothing_is_left_to_explain(seed, inputs):
    there, others, evidence = case(seed, inputs, inputs)
    before = np.linalg.norm(evidence.rows)
    for known in there:
        evidence = evidence.without(known)
    assert np.linalg.norm(evidence.rows) < 1e-8 * before
    np.testing.assert_allclose(evidence.basis @ evidence.basis.T, np.eye(inputs), atol=1e-9)
    assert np.isfinite(evidence.gains(others)).all()


def test_the_same_input_twice_changes_nothing():
    there, _, evidence = case(1, 4, 4)
    once = evidence.without(there[0])
    np.testing.assert_allclose(once.without(there[0]).rows, once.rows, atol=1e-9)


def test_what_is_known_is_no_evidence():
    there, _, evidence = case(2, 4, 6)
    assert evidence.without(there[0]).gains(there[:1])[0] < 1e-6


def test_rows_of_zeros_speak_for_nothing():
    _, others, _ = case(3, 2, 2)
    assert not Evidence.of(np.zeros((4, WIDTH)), 0.1).gains(others).any()


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_neither_the_size_of_rows_nor_of_inputs_matters(seed, size):
    there, others, evidence = case(seed, 6, 4)
    scaled = Evidence.of(evidence.rows * size, evidence.softness)
    for inputs in (there, others):
        np.testing.assert_allclose(scaled.gains(inputs), evidence.gains(inputs), rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(evidence.gains(inputs * size), evidence.gains(inputs), rtol=1e-5, atol=1e-9)
