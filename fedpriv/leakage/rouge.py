"""ROUGE (Lin 2004, *ROUGE: A Package for Automatic Evaluation of Summaries*), over token ids. Arithmetic only.

The usual package splits text into words itself, and brings a toolkit of natural language with it; here the tokens are
known. All three are F-measures with equal weight of precision and recall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def rouge_l(guess: Sequence[int], truth: Sequence[int]) -> float:
    """Return ROUGE-L: of the longest common subsequence (section 3 of the paper), in 0 to 1."""
    best = [0] * (len(truth) + 1)  # of what was read of the guess, with each beginning of the truth
    for token in guess:
        diagonal = 0
        for place, other in enumerate(truth, 1):
            above = best[place]
            best[place] = diagonal + 1 if token == other else max(above, best[place - 1])
            diagonal = above
    return _f_measure(best[-1], len(guess), len(truth))


def rouge_n(guess: Sequence[int], truth: Sequence[int], size: int) -> float:
    """Return ROUGE-N: of the runs of ``size`` tokens that both have (section 2 of the paper), in 0 to 1."""
    mine, theirs = (
        Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1)) for text in (guess, truth)
    )
    return _f_measure((mine & theirs).total(), mine.total(), theirs.total())


def exact_positions(guess: Sequence[int], truth: Sequence[int]) -> float:
    """Return the share of the truth's positions at which the guess has the same token, in 0 to 1."""
    return sum(a == b for a, b in zip(guess, truth, strict=False)) / len(truth) if truth else 0.0


def _f_measure(common: int, guessed: int, true: int) -> float:
    return 2 * common / (guessed + true) if common else 0.0
