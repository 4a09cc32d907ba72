"""A shorter dictionary: the atoms that can matter to one view, so that the attack takes a tenth of the time.

A pursuit looks at every atom for each token that it names. An atom that explains next to nothing of a view by itself is
hardly ever named; those are left out beforehand. It can only weaken the attack, which its positive control would show.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedpriv.leakage.factors import first_factors
from fedpriv.leakage.pursuit import RANK_TOLERANCE
from fedpriv.leakage.tokens import Dictionary, recover_tokens
from fedpriv.leakage.views import View

MOST_ATOMS = 4096


def recover_likely_tokens(view: View, dictionary: Dictionary, count: int, *, most: int = MOST_ATOMS) -> tuple[int, ...]:
    """Guess as :func:`fedpriv.leakage.tokens.recover_tokens`, among the ``most`` atoms that explain most by themselves.

    Raises
    ------
    InputError
        If a value that is visible is not finite.
    """
    kept = likely(view, dictionary, max(most, count))
    if kept is None:
        return recover_tokens(view, dictionary, count)
    shorter = replace(dictionary, frequency=dictionary.frequency[kept], whitened=dictionary.whitened[kept])
    return tuple(int(kept[place]) for place in recover_tokens(view, shorter, count))


def likely(view: View, dictionary: Dictionary, most: int) -> np.ndarray | None:
    """Return the tokens whose atoms explain most of a view, (most,) in ascending order; None if all may stay.

    Where several layers are asked, as under AdamW, the attack does the like itself, with all of them.
    """
    factors = first_factors(view)
    seen = [factors[name] for name in dictionary.tensors if name in factors]
    rows = [tensor / size for tensor in seen if (size := float(np.linalg.norm(tensor)))]
    if (
        dictionary.noise
        or len(dictionary.frequency) <= most
        or not rows
        or not all(np.isfinite(row).all() for row in rows)
    ):
        return None
    white = np.concatenate(rows) @ dictionary.whitener
    lengths = np.einsum("nw,nw->n", dictionary.whitened, dictionary.whitened)
    _, sizes, directions = np.linalg.svd(white, full_matrices=False)
    directions = directions[sizes > RANK_TOLERANCE * sizes[0]]
    scores = np.square(dictionary.whitened @ directions.T).sum(axis=1) / lengths
    return np.sort(np.argpartition(-scores, most)[:most])
