"""How much of an update the inputs of a layer explain, one input after the other. Arithmetic only.

The rows of the update of ``lora_A`` are mixtures of the layer's inputs. An input that was there lies more or less in
what the rows span; one that was not, hardly, if the layer is wide. Where there are more inputs than rows no single one
lies in their span entirely, so the share of it that does is taken as evidence. What is known already is projected out
of the rows and of each further input.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedpriv.leakage.pursuit import Float64

MOST = 1.0 - 1e-3
"""A larger share is not counted: the rest is rounding."""

_DEPENDENT = 1e-3
"""An input of which less (squared) is left counts as though so much were: it says nothing that is not known."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The rows of one layer, without what is known.

    Attributes
    ----------
    rows : ndarray of float64, (any, width)
        Whitened, with ``basis`` projected out.
    basis : ndarray of float64, (known, width)
        Orthonormal; of the inputs that are known.
    softness : float
        A direction of the rows counts by ``e / (e + softness * mean)`` with ``e`` its energy: nearly 0 where rows are
        exact mixtures, so that all directions count alike; larger where the small ones are noise.
    """

    rows: Float64 = field(repr=False)
    basis: Float64 = field(repr=False)
    softness: float

    @classmethod
    def of(cls, rows: Float64, softness: float) -> Evidence:
        """Return the evidence of rows of which nothing is known yet."""
        return cls(rows=rows, basis=np.empty((0, rows.shape[1])), softness=softness)

    def gains(self, inputs: Float64) -> Float64:
        """Return for each input the gain in log-likelihood for each half of a dimension: ``-log(1 - s)``.

        ``s`` is the (soft) share of the input, as far as it is not known, that lies in the span of the rows. Of random
        directions it is beta-distributed, and its density falls with ``(1 - s)^((width - rows) / 2)``.

        Parameters
        ----------
        inputs : ndarray of float64, (any, width)
            Whitened.

        Returns
        -------
        ndarray of float64, (any,)
            Not negative; all 0 if nothing of the rows is left.
        """
        energies, vectors = np.linalg.eigh(self.rows @ self.rows.T)
        mean = float(energies.mean())
        if mean <= 0:
            return np.zeros(len(inputs))
        whole = np.square(inputs).sum(axis=1)
        rest = inputs - (inputs @ self.basis.T) @ self.basis
        directions = vectors.T @ self.rows
        weights = 1 / (np.maximum(energies, 0) + self.softness * mean)
        within = np.square(rest @ directions.T) @ weights
        left = np.maximum(np.square(rest).sum(axis=1), _DEPENDENT * whole)
        share = np.divide(within, left, out=np.zeros_like(within), where=left > 0)
        return -np.log1p(-np.minimum(share, MOST))

    def without(self, known: Float64) -> Evidence:
        """Return what is left once one more input, (width,), is known."""
        fresh = known
        for _ in range(2):  # the second time takes off what rounding left
            fresh = fresh - self.basis.T @ (self.basis @ fresh)
        size = float(np.linalg.norm(fresh))
        if size <= 1e-6 * float(np.linalg.norm(known)):
            return self
        fresh = fresh / size
        rows = self.rows - np.outer(self.rows @ fresh, fresh)
        return Evidence(rows=rows, basis=np.vstack([self.basis, fresh]), softness=self.softness)
