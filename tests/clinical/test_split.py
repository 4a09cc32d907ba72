"""The split by patient and by time."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.clinical.split import split_by_patient, split_by_time
from fedpriv.errors import DataError

# few moments, so that many last admissions are at the same one
moments = st.integers(0, 12).map(lambda day: datetime.datetime(2150, 1, 1) + datetime.timedelta(days=day))
histories = st.dictionaries(st.integers(1, 10**6), st.lists(moments, min_size=1, max_size=4), min_size=2, max_size=40)
fractions = st.floats(0.01, 0.99)


@given(histories, fractions, st.integers(0, 3))
def test_nobody_is_on_both_sides_and_nothing_held_out_is_before_what_is_trained_on(admitted, fraction, seed):
    split = split_by_time(admitted, heldout_fraction=fraction, seed=seed)
    assert split.train
    assert split.heldout
    assert not set(split.train) & set(split.heldout)
    assert set(split.train) | set(split.heldout) == set(admitted)
    assert math.isclose(len(split.heldout), len(admitted) * fraction, abs_tol=1)
    heldout = frozenset(split.heldout)
    sides = {"train": [], "heldout": [], "": []}
    for subject, times in admitted.items():
        for time in times:
            sides[split.side(subject, time, heldout)].append((time, subject))
    assert max(sides["train"])[0] <= split.since <= min(sides["heldout"])[0]
    assert {subject for _, subject in sides["heldout"]} == heldout
    assert len(sides["train"]) == sum(len(admitted[subject]) for subject in split.train)
    assert len(sides[""]) == split.left_out


@given(histories, fractions, st.randoms())
def test_the_order_of_the_patients_does_not_matter(admitted, fraction, draw):
    shuffled = list(admitted.items())
    draw.shuffle(shuffled)
    other = {subject: sorted(times, reverse=True) for subject, times in shuffled}
    assert split_by_time(other, heldout_fraction=fraction) == split_by_time(admitted, heldout_fraction=fraction)


def test_the_latest_are_held_out_with_what_is_as_late():
    days = {1: [1, 9], 2: [2], 3: [3, 8], 4: [7], 5: [10]}
    admitted = {subject: [datetime.datetime(2150, 1, day) for day in found] for subject, found in days.items()}
    split = split_by_time(admitted, heldout_fraction=0.4)
    assert set(split.heldout) == {1, 5}
    assert (split.since, split.left_out) == (datetime.datetime(2150, 1, 9), 1)
    assert split.side(1, datetime.datetime(2150, 1, 1), frozenset(split.heldout)) == ""


@given(st.sets(st.integers(1, 10**6), min_size=2, max_size=60), fractions, st.integers(0, 5))
def test_the_split_by_patient_has_no_moment(subjects, fraction, seed):
    split = split_by_patient(sorted(subjects, reverse=True), heldout_fraction=fraction, seed=seed)
    assert split == split_by_patient(subjects, heldout_fraction=fraction, seed=seed)
    assert set(split.train) | set(split.heldout) == subjects
    assert not set(split.train) & set(split.heldout)
    assert (split.since, split.left_out) == (None, 0)
    assert {split.side(s, datetime.datetime.min, frozenset(split.heldout)) for s in subjects} == {"train", "heldout"}


def test_too_few_patients_and_a_wrong_share_are_refused():
    one = {1: [datetime.datetime(2150, 1, 1)], 2: []}
    with pytest.raises(DataError, match="empty shard: 1 patient"):
        split_by_time(one, heldout_fraction=0.5)
    with pytest.raises(DataError, match="empty shard"):
        split_by_patient([1], heldout_fraction=0.5)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="heldout_fraction"):
            split_by_patient([1, 2], heldout_fraction=fraction)
