"""Which tokens several layers speak for together, under noise: a pursuit as in :mod:`fedpriv.leakage.pursuit`.

Beyond the first block an input depends on what stands before, but mostly on its own token. So what a token gives after
some public text stands for what it gave in the private one: an atom that is a little off, which under noise hardly
matters, while each further layer shows the same tokens through other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedpriv.leakage.evidence import Evidence
from fedpriv.leakage.pursuit import Float64
from fedpriv.training.adapter import Float32

TRUST = 0.6
"""Part of the layers' mean log-likelihood that counts: atoms are a little off, and layers err together. From 0.4 to 1.2
it makes little difference (made-up notes, SmolLM2-135M)."""

_SOFTNESS = 0.1
"""At least: small directions of the rows tell exact inputs, and atoms are only near them."""

_SCREENED = 1000
"""So many tokens are pursued, those that look best at once, with what is known before and without it."""


def presence(frequency: Float64, count: int) -> Float64:
    """Return the logarithm of the odds that a token is in a text of ``count`` distinct tokens: (vocabulary,).

    Occurrences are taken for independent (Poisson): a token of frequency ``f`` is in ``N`` of them with probability
    ``1 - exp(-N f)``, and ``N`` is such that ``count`` are expected.
    """
    low, high = 0.0, 1.0
    while np.sum(-np.expm1(-high * frequency)) < min(count, 0.99 * len(frequency)):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(-np.expm1(-middle * frequency)) < count else (low, middle)
    return np.log(np.expm1(np.minimum(high * frequency, 50.0)))


def pursue_layers(
    atoms: Mapping[int, Float32], evidence: Mapping[int, Evidence], count: int, prior: Float64
) -> list[int]:
    """Name ``count`` tokens, the likeliest first.

    Parameters
    ----------
    atoms : dict of ndarray of float32, (vocabulary, width)
        What each layer gets for each token, whitened, of length 1.
    evidence : dict of Evidence
        Of the same layers; others are left out.
    count : int
        How many tokens to name.
    prior : ndarray of float64, (vocabulary,)
        Logarithm of the odds of each token before.

    Returns
    -------
    list of int
        None twice; fewer than ``count`` if there are not so many.
    """
    layers = sorted(set(atoms) & set(evidence))
    if not layers:
        return []
    known = {layer: replace(evidence[layer], softness=max(evidence[layer].softness, _SOFTNESS)) for layer in layers}
    first = _scores(known, {layer: atoms[layer].astype(np.float64) for layer in layers})
    best = [np.argsort(-scores, kind="stable")[:_SCREENED] for scores in (first, first + prior)]
    tokens = np.unique(np.concatenate(best))
    some = {layer: atoms[layer][tokens].astype(np.float64) for layer in layers}
    usable, chosen = np.ones(len(tokens), bool), []
    for _ in range(min(count, len(tokens))):
        scores = prior[tokens] + _scores(known, some)
        place = int(np.argmax(np.where(usable, scores, -np.inf)))
        usable[place] = False
        chosen.append(int(tokens[place]))
        known = {layer: known[layer].without(some[layer][place]) for layer in layers}
    return chosen


def _scores(evidence: Mapping[int, Evidence], inputs: Mapping[int, Float64]) -> Float64:
    """Return what the layers say for each token, in nats: (tokens,)."""
    gains = [values.shape[1] / 2 * evidence[layer].gains(values) for layer, values in inputs.items()]
    return TRUST * np.mean(gains, axis=0)
