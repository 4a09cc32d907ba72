"""What public text says about which token follows which: a bigram model, smoothed by how often tokens occur at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpriv.leakage.pursuit import Float64
from fedpriv.training.examples import Example

SMOOTHING = 0.1
"""Counted for every token beside what public text shows: a token that is not there can still occur."""

_ALONE = 0.2
"""Share of the prediction that does not look at the token before (Jelinek and Mercer 1980)."""


def frequency_of(public: Sequence[Example], vocabulary: int) -> Float64:
    """Return how often each token occurs in public text, smoothed: (vocabulary,), sums to 1."""
    counts = np.full(vocabulary, SMOOTHING)
    for example in public:
        np.add.at(counts, list(example.ids), 1.0)
    return counts / counts.sum()


@dataclass(frozen=True, kw_only=True)
class Bigrams:
    """How probable tokens are, by themselves and after another.

    Attributes
    ----------
    frequency : ndarray of float64, (vocabulary,)
        How often each token occurs; sums to 1.
    """

    frequency: Float64 = field(repr=False)
    _followers: dict[int, Counter[int]] = field(repr=False)

    @classmethod
    def of(cls, public: Sequence[Example], vocabulary: int) -> Bigrams:
        """Count the tokens of public text."""
        followers: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for example in public:
            for first, second in zip(example.ids, example.ids[1:], strict=False):
                followers[first][second] += 1
        return cls(frequency=frequency_of(public, vocabulary), _followers=dict(followers))

    def after(self, token: int | None, count: int) -> list[int]:
        """Return up to ``count`` tokens that followed this one in public text, the most frequent first."""
        return [] if token is None else [other for other, _ in self._followers.get(token, Counter()).most_common(count)]

    def logarithm(self, token: int | None, following: Sequence[int]) -> Float64:
        """Return the logarithm of the probability of each of these after a token, or at a beginning: (following,)."""
        alone = self.frequency[list(following)]
        seen = self._followers.get(token, Counter()) if token is not None else Counter()
        total = seen.total()
        if not total:
            return np.log(alone)
        return np.log(_ALONE * alone + (1 - _ALONE) * np.array([seen[other] for other in following]) / total)
