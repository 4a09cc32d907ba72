"""What a level of protection does with one group of parameters, block by block: the three roles and their bytes.

A group is cut into blocks of ``width`` values. A block of an update becomes one row of ``row_bytes`` bytes; the sum of
``K`` such rows is one row of ``sum_row_bytes(K)`` bytes. Blocks are independent of each other: they are streamed, and
several processes may work on different ones. Values come and go in units of their tensor's scale, so about [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SealedRows:
    """What sealing some blocks gives.

    Attributes
    ----------
    rows : ndarray of uint8, shape (blocks, row_bytes)
        One row a block.
    residual : ndarray of float32, shape (n,), or None
        Values minus what the rows stand for; None where nothing is left out.
    clipped : int
        How many values were beyond 1 in magnitude, and cut.
    """

    rows: np.ndarray
    residual: np.ndarray | None = field(default=None, repr=False)
    clipped: int = 0


class BlockShape(Protocol):
    """The sizes of one level's blocks."""

    @property
    def width(self) -> int:
        """Values in a block."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of one block of one update."""
        ...

    def sum_row_bytes(self, clients: int) -> int:
        """Return the bytes of one block of the sum of ``clients`` updates."""
        ...


class BlockSealer(Protocol):
    """A domain's half: protects blocks of one update of one round."""

    def seal(self, first: int, values: np.ndarray) -> SealedRows:
        """Protect consecutive blocks.

        Parameters
        ----------
        first : int
            Index of the first block in its group.
        values : ndarray of float32, shape (n,)
            Finite, in units of the scale; whole blocks, but for the last one of the group.
        """
        ...


class BlockAdder(Protocol):
    """The aggregator's half: adds rows without being able to read them."""

    def add(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Add the same blocks of ``K`` updates, one after the other, so that two are in memory at a time.

        Parameters
        ----------
        parts : iterable of ndarray of uint8, shape (blocks, row_bytes)
            One array for each update.

        Returns
        -------
        ndarray of uint8, shape (blocks, sum_row_bytes(K))

        Raises
        ------
        ContainerError
            If a row cannot be one of this level, such as a ciphertext out of range.
        """
        ...


class BlockOpener(Protocol):
    """A domain's other half: opens blocks of a sum."""

    def open(self, first: int, rows: np.ndarray, number: int) -> np.ndarray:
        """Open consecutive blocks of a sum.

        Parameters
        ----------
        first : int
            Index of the first block in its group.
        rows : ndarray of uint8, shape (blocks, sum_row_bytes)
            What the adder made.
        number : int
            How many values are in these blocks.

        Returns
        -------
        ndarray of float64, shape (number,)
            The sum, in units of the scale.

        Raises
        ------
        ContainerError
            If a row is malformed.
        TamperedError
            If it is not the sum of what the members sealed.
        """
        ...
