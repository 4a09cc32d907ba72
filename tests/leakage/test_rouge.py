"""ROUGE over token ids, against its definition."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.leakage.rouge import exact_positions, rouge_l, rouge_n

TEXTS = st.lists(st.integers(0, 3), max_size=7)


def longest_common(one, other):
    """By trying every subsequence, the longest first."""
    for size in range(len(one), 0, -1):
        for part in itertools.combinations(one, size):
            rest = iter(other)
            if all(token in rest for token in part):
                return size
    return 0


@given(TEXTS, TEXTS)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(guess, truth):
    common = longest_common(guess, truth)
    expected = 0.0
    if common:
        precision, recall = common / len(guess), common / len(truth)
        expected = 2 * precision * recall / (precision + recall)
    assert rouge_l(guess, truth) == pytest.approx(expected)


@given(TEXTS, TEXTS, st.integers(1, 3))
def test_rouge_n_matches_each_run_once(guess, truth, size):
    def runs(text):
        return [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]

    left, common = runs(truth), 0
    for run in runs(guess):
        if run in left:
            left.remove(run)
            common += 1
    total = len(runs(guess)) + len(runs(truth))
    assert rouge_n(guess, truth, size) == pytest.approx(2 * common / total if common else 0.0)


@given(TEXTS, TEXTS)
def test_all_are_symmetric_in_0_to_1_and_1_for_the_same(one, other):
    for measure in (rouge_l, lambda a, b: rouge_n(a, b, 1), lambda a, b: rouge_n(a, b, 2)):
        assert measure(one, other) == measure(other, one)
        assert 0 <= measure(one, other) <= 1
    if one:
        assert rouge_l(one, one) == rouge_n(one, one, 1) == exact_positions(one, one) == 1


def test_exact_positions_are_of_the_truth():
    assert exact_positions([1, 2, 3], [1, 0, 3, 4]) == 0.5
    assert exact_positions([], [1]) == exact_positions([1], []) == 0.0
