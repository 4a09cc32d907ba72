from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ContainerError
from fedpriv.protection.plain import WIDTH, PlainAdder, PlainOpener, PlainSealer, PlainShape

VALUES = np.linspace(-2, 2, WIDTH + 5, dtype=np.float32)


def rows(values=VALUES) -> np.ndarray:
    return PlainSealer().seal(0, values).rows


def test_a_row_is_the_values_in_float32_filled_up_with_zeros():
    sealed = PlainSealer().seal(0, VALUES)
    assert sealed.rows.shape == (2, PlainShape().row_bytes) == (2, 4 * 4096)
    assert sealed.rows.tobytes() == VALUES.astype("<f4").tobytes() + bytes(4 * (WIDTH - 5))
    assert (sealed.residual, sealed.clipped) == (None, 0)


def test_sums_are_rounded_once():
    tiny, one = np.full(3, 2.0**-24, np.float32), np.ones(3, np.float32)
    total = PlainAdder().add([rows(one), rows(tiny), rows(tiny)])
    assert PlainOpener(3).open(0, total, 3).tolist() == [1 + 2.0**-23] * 3
    assert total.shape == (1, PlainShape().sum_row_bytes(3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    bad = VALUES.copy()
    bad[7] = value
    with pytest.raises(ContainerError, match="not finite"):
        PlainAdder().add([rows(), rows(bad)])
    with pytest.raises(ContainerError, match="not finite"):
        PlainOpener(2).open(0, rows(bad), VALUES.size)


def test_values_where_there_is_no_parameter_are_refused():
    with pytest.raises(ContainerError, match="no parameter"):
        PlainOpener(2).open(0, rows(), VALUES.size - 1)


@pytest.mark.parametrize("change", [lambda r: r[:, 1:], lambda r: r[0], lambda r: np.hstack([r, r])])
def test_rows_of_a_wrong_size_are_refused(change):
    with pytest.raises(ContainerError, match="wrong size"):
        PlainAdder().add([change(rows())])
    with pytest.raises(ContainerError, match="wrong size"):
        PlainOpener(2).open(0, change(rows()), 5)


@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 5),
    size=st.sampled_from([1, 2, WIDTH - 1, WIDTH, WIDTH + 1, 3 * WIDTH]),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_a_sum_is_the_float64_sum_rounded_once(clients, size, seed, spread):
    updates = (np.random.default_rng(seed).normal(size=(clients, size)) * spread).astype(np.float32)
    parts = [rows(update) for update in updates]
    before = [part.copy() for part in parts]
    total = PlainAdder().add(iter(parts))
    assert all(np.array_equal(part, old) for part, old in zip(parts, before, strict=True))
    opened = PlainOpener(clients).open(0, total, size)
    assert (opened.dtype, opened.shape) == (np.float64, (size,))
    exact = updates[0].astype(np.float64)
    for update in updates[1:]:
        exact = exact + update
    np.testing.assert_array_equal(opened, exact.astype(np.float32))


def test_a_sum_beyond_float32_is_refused():
    most = np.full(3, 3e38, np.float32)
    with pytest.raises(ContainerError, match="beyond"):
        PlainAdder().add([rows(most), rows(most)])


@pytest.mark.parametrize("value", [1.0, -1e-30, -0.0])
@pytest.mark.parametrize("position", [WIDTH + 5, 2 * WIDTH - 1])
def test_padding_that_is_not_zero_is_refused(value, position):
    changed = rows()
    changed.view("<f4").reshape(-1)[position] = value
    with pytest.raises(ContainerError, match="no parameter"):
        PlainOpener(2).open(0, changed, VALUES.size)


def test_updates_of_other_lengths_or_none_are_refused():
    one = rows(VALUES[:3])
    for parts in ([one, rows()], [rows(), one]):  # one block is never repeated over two
        with pytest.raises(ContainerError, match="same number"):
            PlainAdder().add(parts)
    with pytest.raises(ContainerError, match="no update"):
        PlainAdder().add([])
