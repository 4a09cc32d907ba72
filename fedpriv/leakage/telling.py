"""Which tokens tell something, and how long a passage an attack resolves: the same for everybody who measures."""

from __future__ import annotations

MOST_TOKENS = 32
"""Of a passage: longer ones the attack on tokens does not resolve, and its control would fail."""

MOST_COMMON = 300
"""Tokens of a real model that tell nothing."""


def common_count(vocabulary: int) -> int:
    """Return how many of the most frequent tokens tell nothing: 300 for a real model, fewer for a small vocabulary."""
    return min(MOST_COMMON, vocabulary // 8)


def passage_length(width: int, max_tokens: int) -> int:
    """Return how many tokens a passage has at the most.

    Parameters
    ----------
    width : int
        Of the model's inputs: mixtures of more than about half as many atoms cannot be told apart.
    max_tokens : int
        After how many training cuts a text.
    """
    return min(MOST_TOKENS, max_tokens, width * 3 // 8)
