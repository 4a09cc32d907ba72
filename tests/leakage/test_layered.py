"""Several layers together find under noise what one cannot, and weigh what is known before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.leakage.evidence import Evidence
from fedpriv.leakage.layered import presence, pursue_layers

WIDTH, TOKENS = 64, 300


def case(seed, layers, *, count=6, rows=6, noise=3.0):
    """Atoms by layer, which are there, and noisy evidence in which each layer mixes them in its own way."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(TOKENS, count, replace=False)
    atoms, evidence = {}, {}
    for layer in range(layers):
        some = rng.normal(size=(TOKENS, WIDTH))
        atoms[layer] = (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)
        seen = rng.normal(size=(rows, count)) @ atoms[layer][chosen]
        noisy = seen + noise * np.sqrt(count / WIDTH) * rng.normal(size=seen.shape)
        evidence[layer] = Evidence.of(noisy, 0.1)
    return atoms, evidence, set(chosen.tolist())


EVEN = np.zeros(TOKENS)


def test_more_layers_find_more():
    found = {}
    for layers in (1, 4):
        cases = [case(seed, layers) for seed in range(10)]
        found[layers] = sum(len(set(pursue_layers(a, e, 6, EVEN)) & chosen) for a, e, chosen in cases)
    assert found[4] > found[1] + 10
    assert found[4] > 28


def test_without_evidence_what_is_known_before_decides():
    atoms, _, _ = case(1, 2)
    silent = {layer: Evidence.of(np.zeros((4, WIDTH)), 0.1) for layer in atoms}
    prior = np.random.default_rng(0).normal(size=TOKENS)
    assert pursue_layers(atoms, silent, 5, prior) == np.argsort(-prior)[:5].tolist()
    assert pursue_layers(atoms, {}, 5, prior) == []


def test_no_token_is_named_twice():
    atoms, evidence, _ = case(2, 2)
    found = pursue_layers(atoms, evidence, 40, EVEN)
    assert len(found) == len(set(found)) == 40


@given(st.lists(st.floats(1e-4, 1.0), min_size=5, max_size=40), st.integers(1, 4))
def test_as_many_tokens_are_expected_as_there_are(weights, count):
    frequency = np.array(weights) / np.sum(weights)
    odds = np.exp(presence(frequency, count))
    assert (odds / (1 + odds)).sum() == pytest.approx(count, rel=1e-3)
    assert (np.diff(odds[np.argsort(frequency)]) >= -1e-12).all()
