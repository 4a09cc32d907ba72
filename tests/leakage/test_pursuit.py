"""The pursuit finds exactly the atoms that rows were mixed from, and says nothing where there is nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage.pursuit import pursue, whitener

WIDTH, ATOMS = 32, 120


def mixed(seed, count, rows):
    """Atoms of a width, the numbers of those that are in the rows, and the rows; coefficients spread over decades."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(ATOMS, WIDTH)) * 10 ** rng.uniform(-1, 1, size=(ATOMS, 1))
    chosen = rng.choice(ATOMS, count, replace=False)
    coefficients = rng.normal(size=(rows, count)) * 10 ** rng.uniform(-1, 0, size=(rows, 1))
    return atoms, set(chosen.tolist()), coefficients @ atoms[chosen]


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(8, 12))
def test_with_as_many_rows_as_atoms_every_atom_is_found_first(seed, count, rows):
    """With rows of full rank, an atom lies in their span only if it is in them: the rank-aware pursuit cannot fail."""
    atoms, chosen, seen = mixed(seed, count, rows)
    assert set(pursue(atoms, seen, ATOMS)[:count]) == chosen


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_neither_the_size_of_the_rows_nor_of_atoms_matters(seed, size):
    atoms, _, seen = mixed(seed, 5, 6)
    found = set(pursue(atoms, seen, 5))
    assert set(pursue(atoms * size, seen, 5)) == set(pursue(atoms, seen * size, 5)) == found


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_no_atom_is_named_twice_and_never_more_than_asked(seed, count):
    atoms, _, seen = mixed(seed, 20, 6)
    found = pursue(atoms, seen, count)
    assert len(found) == len(set(found)) <= min(count, WIDTH)


def test_explained_rows_end_it():
    atoms, chosen, seen = mixed(3, 4, 6)
    assert set(pursue(atoms, seen, 50)) == chosen


def test_more_atoms_than_rows_are_found_too():
    atoms, chosen, seen = mixed(4, 9, 6)
    assert set(pursue(atoms, seen, 9)) == chosen


def test_rows_of_zeros_name_nothing():
    atoms, _, seen = mixed(1, 2, 3)
    assert pursue(atoms, np.zeros_like(seen), 5) == []
    assert pursue(atoms, seen[:0], 5) == []


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(odd):
    atoms, _, seen = mixed(1, 2, 3)
    seen[1, 2] = odd
    with pytest.raises(InputError, match="not finite"):
        pursue(atoms, seen, 5)


@given(st.integers(0, 2**32 - 1))
def test_whitened_atoms_have_the_unit_matrix_as_second_moment(seed):
    rng = np.random.default_rng(seed)
    atoms, weights = rng.normal(size=(ATOMS, 8)) @ rng.normal(size=(8, 8)), rng.uniform(0.1, 1, ATOMS)
    white = atoms @ whitener(atoms, weights, ridge=0.0)
    moment = (white * (weights / weights.sum())[:, None]).T @ white
    np.testing.assert_allclose(moment, np.eye(8), atol=1e-6)


def test_a_direction_that_no_atom_has_is_not_blown_up():
    atoms = np.random.default_rng(0).normal(size=(ATOMS, 8))
    atoms[:, 3] = 0.0
    assert np.linalg.norm(whitener(atoms, np.ones(ATOMS)), 2) < 2e3
