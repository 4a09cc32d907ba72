"""Level ``plain``: updates as they are. The federated-learning baseline of experiments; it protects nothing.

A row is 4096 values, little-endian float32, 4 bytes a parameter; the last one of a group is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedpriv.errors import ContainerError
from fedpriv.protection.blocks import SealedRows

WIDTH = 4096
_FLOAT = np.dtype("<f4")
_KEPT = "Nothing was added or opened"


@dataclass(frozen=True)
class PlainShape:
    """The sizes of plain blocks."""

    width: int = WIDTH
    row_bytes: int = WIDTH * _FLOAT.itemsize

    def sum_row_bytes(self, clients: int) -> int:
        return self.row_bytes


class PlainSealer:
    """Writes the values as they are.

    *Guarantee*: none; whoever has the container has the update.
    """

    def seal(self, first: int, values: np.ndarray) -> SealedRows:
        """Write values; see :class:`fedpriv.protection.blocks.BlockSealer`."""
        rows = np.zeros((-(-values.size // WIDTH), WIDTH), _FLOAT)
        rows.reshape(-1)[: values.size] = values
        return SealedRows(rows=rows.view(np.uint8))


class PlainAdder:
    """Adds in float64, writes float32."""

    def add(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Add rows; see :class:`fedpriv.protection.blocks.BlockAdder`."""
        total: np.ndarray | None = None
        for rows in parts:
            values = _values(rows)
            if total is None:
                total = values.astype(np.float64)
            elif len(values) != len(total):  # numpy would repeat a single block
                raise ContainerError("the updates do not have the same number of plain blocks", kept=_KEPT)
            else:
                total += values
        if total is None:
            raise ContainerError("there is no update to add", kept=_KEPT)
        with np.errstate(over="ignore"):  # found in the next line
            added = total.astype(_FLOAT)
        if not np.isfinite(added).all():
            raise ContainerError("a plain sum is beyond what float32 can hold", kept=_KEPT)
        return added.view(np.uint8)


class PlainOpener:
    """Reads the sum of ``clients`` updates.

    *Guarantee*: none; a plain sum carries nothing that tells how many updates are in it, so ``clients`` is not checked.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients

    def open(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Read rows; see :class:`fedpriv.protection.blocks.BlockOpener`."""
        values = _values(rows).reshape(-1)
        if values[number:].view(np.uint8).any():  # bytes: a negative zero is not padding either
            raise ContainerError("a plain sum holds values where there is no parameter", kept=_KEPT)
        return values[:number].astype(np.float64)


def _values(rows: np.ndarray) -> np.ndarray:
    """Return the values in rows (float32, shape (blocks, 4096)), after checking that they are finite."""
    if rows.ndim != 2 or rows.shape[1] != WIDTH * _FLOAT.itemsize:
        raise ContainerError("a plain block has a wrong size", kept=_KEPT)
    values = np.ascontiguousarray(rows).view(_FLOAT)
    if not np.isfinite(values).all():
        raise ContainerError("a plain update or sum holds values that are not finite", kept=_KEPT)
    return values
