"""A shorter dictionary gives the same answers where the attack works, and never more guesses than were asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.leakage import ADAPTIVE_NOISE, View, gradient_of, read_tokens, recover_tokens, token_dictionary
from fedpriv.leakage.screening import likely, recover_likely_tokens
from fedpriv.leakage.telling import MOST_TOKENS, common_count, passage_length
from tests.leakage.conftest import LORA, noise, view_of


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_tokens_of_a_gradient_are_among_the_likely_atoms(attacked, adaptive):
    dictionary = attacked.dictionary
    if adaptive:
        dictionary = token_dictionary(attacked.folder, LORA, attacked.public, noise=ADAPTIVE_NOISE)
    shares = []
    for seed in range(4):
        batch = attacked.passages(1, seed=seed)
        secret = read_tokens(batch)
        view = view_of(gradient_of(attacked.folder, LORA, attacked.adapter, batch))
        full = recover_tokens(view, dictionary, len(secret))
        short = recover_likely_tokens(view, dictionary, len(secret), most=160)
        assert len(short) == len(set(short)) == len(secret)
        shares.append((len(secret & set(full)) / len(secret), len(secret & set(short)) / len(secret)))
    full, short = np.mean(shares, axis=0)
    assert full > 0.6
    assert short > full - 0.1


def test_all_atoms_stay_where_there_are_few_or_nothing_is_seen(attacked):
    nothing = View(party="nobody", levels={}, tensors={})
    assert likely(nothing, attacked.dictionary, 10) is None
    assert likely(view_of(noise(attacked.layout, 1)), attacked.dictionary, 512) is None
    kept = likely(view_of(noise(attacked.layout, 1)), attacked.dictionary, 100)
    assert len(kept) == 100
    assert (np.diff(kept) > 0).all()
    guesses = recover_likely_tokens(nothing, attacked.dictionary, 20, most=10)
    assert list(guesses) == attacked.dictionary.by_frequency[:20]


@given(st.integers(1, 10**6), st.integers(8, 10**5), st.integers(8, 10**5))
def test_what_does_not_count_and_how_long_a_passage_is(vocabulary, width, max_tokens):
    assert 0 <= common_count(vocabulary) <= min(300, vocabulary)
    assert 0 < passage_length(width, max_tokens) <= min(MOST_TOKENS, max_tokens, width / 2)
    assert common_count(49_152) == 300
