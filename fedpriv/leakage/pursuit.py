"""Simultaneous orthogonal matching pursuit: which few atoms of a dictionary span given rows. Arithmetic only.

The rows of an update of ``lora_A`` are mixtures of the same few inputs of the layer, each row with other coefficients.
So the atoms are sought for all rows together, and every direction of what is left of the rows counts alike, however
small it is: RA-ORMP of Davies and Eldar 2012, *Rank awareness in joint sparse recovery* (IEEE Transactions on
Information Theory 58 (2), algorithm 3). All in float64: float32 has lost the small directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError

Float64 = NDArray[np.float64]

RANK_TOLERANCE = 1e-5
"""A direction of the rows that is smaller than this part of the largest is rounding of float32."""

_DEPENDENT = 1e-9
"""An atom of which less than this part (squared) is left is a mixture of those that were chosen."""


def whitener(atoms: Float64, weights: Float64, *, noise: float = 0.0, ridge: float = 1e-6) -> Float64:
    """Return ``(C + nu diag C)^(-1/2)`` for the second moment ``C = sum_i p_i a_i a_i^T`` of the atoms as they occur.

    After it, what a typical text has in common points nowhere, nor does the noise, and a rare atom stands out.

    Parameters
    ----------
    atoms : ndarray of float64, (count, width)
        One atom a row.
    weights : ndarray of float64, (count,)
        ``p``: how often each occurs, not negative, not all zero.
    noise : float
        ``nu``: energy in the rows that is no mixture of atoms, in each coordinate as a part of the atoms' there.
    ridge : float
        Added to the eigenvalues, as a part of the largest: a direction that no atom has is not blown up.

    Returns
    -------
    ndarray of float64, (width, width)
        Symmetric; multiply atoms and rows by it from the right.
    """
    return inverse_root((atoms * (weights / weights.sum())[:, np.newaxis]).T @ atoms, noise=noise, ridge=ridge)


def inverse_root(moment: Float64, *, noise: float = 0.0, ridge: float = 1e-6) -> Float64:
    """Return ``(C + nu diag C)^(-1/2)`` for a second moment ``C``, (width, width); see :func:`whitener`."""
    moment = moment + noise * np.diag(np.diag(moment))
    values, vectors = np.linalg.eigh(moment)
    return (vectors / np.sqrt(np.maximum(values, 0.0) + ridge * values[-1])) @ vectors.T


def pursue(atoms: Float64, rows: Float64, count: int) -> list[int]:
    """Name up to ``count`` atoms that together span the rows, the one that explains most first.

    Every direction of what is left of the rows counts alike. For rows with noise there is
    :func:`fedpriv.leakage.layered.pursue_layers`.

    Parameters
    ----------
    atoms : ndarray of float64, (number, width)
        One atom a row, of any lengths.
    rows : ndarray of float64, (any, width)
        What was seen.
    count : int
        Most atoms to name.

    Returns
    -------
    list of int
        Indices of atoms, none twice; fewer than ``count`` once the rows are explained or the atoms span everything.

    Raises
    ------
    InputError
        If a value is not finite: a decomposition of it would mean nothing.
    """
    if not np.isfinite(rows).all():
        raise InputError("The rows hold values that are not finite", todo="look at how this update was made")
    least = RANK_TOLERANCE * float(np.linalg.norm(rows, 2)) if rows.size else 0.0
    left = _directions(rows, least)
    lengths = np.einsum("nw,nw->n", atoms, atoms)
    remaining = lengths.copy()  # squared length of each atom's part that the chosen ones do not span
    basis = np.empty((0, atoms.shape[1]))
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        usable = remaining > _DEPENDENT * lengths
        if not usable.any():
            break
        scores = np.square(atoms @ left.T).sum(axis=1) / np.where(usable, remaining, np.inf)
        best = int(np.argmax(np.where(usable, scores, -np.inf)))
        chosen.append(best)
        fresh = _beyond(atoms[best], basis)
        basis = np.vstack([basis, fresh])
        remaining -= np.square(atoms @ fresh)
        rows = rows - np.outer(rows @ fresh, fresh)
        left = _directions(rows, least)
    return chosen


def _directions(rows: Float64, least: float) -> Float64:
    """Return an orthonormal basis of what rows span, without directions whose size is at most ``least``."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    return directions[sizes > least]


def _beyond(atom: Float64, basis: Float64) -> Float64:
    """Return the direction of an atom's part that an orthonormal basis does not span."""
    for _ in range(2):  # the second time takes off what rounding left
        atom = atom - basis.T @ (basis @ atom)
    return atom / np.linalg.norm(atom)
