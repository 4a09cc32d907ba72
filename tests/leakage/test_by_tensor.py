"""The attack on single tensors succeeds where it must, and finds nothing where there is nothing."""

import numpy as np
import pytest

from fedpriv.errors import InputError
from fedpriv.leakage import first_inputs as first_module
from fedpriv.leakage import gradient_of
from fedpriv.leakage.by_tensor import CONTEXT_TOKENS, leakage_by_tensor, tensor_dictionaries
from fedpriv.training.examples import Example
from tests.leakage.conftest import COMMON, LORA, noise, view_of

BLOCK = "base_model.model.model.layers.{}.self_attn.{}.weight"


@pytest.fixture(scope="module")
def rates(attacked):
    passages = [note for seed in range(12) for note in attacked.passages(1, seed=seed, length=12)]
    told = []
    found = leakage_by_tensor(
        attacked.folder,
        LORA,
        attacked.adapter,
        passages=passages,
        public=attacked.public,
        common=COMMON,
        report=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (8, 8)
    return found


@pytest.fixture(scope="module")
def known(attacked):
    return tensor_dictionaries(attacked.folder, LORA, attacked.adapter, public=attacked.public, candidates=range(512))


def test_positive_control_one_tensor_of_the_first_block_gives_the_tokens_away(rates):
    for layer in ("q_proj", "v_proj"):
        rate = rates[BLOCK.format(0, f"{layer}.lora_A")]
        assert rate.control.value > 0.95
        assert rate.above_chance.value > 0.7


def test_positive_control_a_token_in_the_very_context_of_the_dictionary_is_named_from_any_block(attacked, known):
    """Where the text before is the public one, the atoms are exact, however deep the layer: nothing is noise."""
    before, usual = attacked.public[0].ids[:CONTEXT_TOKENS], set(np.argsort(-known.frequency)[:COMMON].tolist())
    telling = [token for token in {t for note in attacked.public for t in note} if token not in usual][:16]
    for tensor in (BLOCK.format(block, f"{layer}.lora_A") for block in (0, 1) for layer in ("q_proj", "v_proj")):
        dictionary = known.of(tensor, noise=0.0)
        found = 0
        for token in telling:
            text = Example((*before, token, 3))
            view = view_of(gradient_of(attacked.folder, LORA, attacked.adapter, [text]))
            found += token in known.recover(view, dictionary, 9)
        assert found >= 12, (tensor, found)


def test_a_deeper_block_tells_less_than_the_first(rates):
    for layer in ("q_proj", "v_proj"):
        first, second = (rates[BLOCK.format(block, f"{layer}.lora_A")].above_chance for block in (0, 1))
        assert second.value < first.low


def test_the_second_factor_tells_little(rates):
    for block in (0, 1):
        for layer in ("q_proj", "v_proj"):
            assert rates[BLOCK.format(block, f"{layer}.lora_B")].above_chance.value < 0.3


def test_negative_control_noise_in_a_tensor_names_no_telling_token(attacked, known):
    """Twelve guesses among 512 tokens name 2 % by chance."""
    usual = set(np.argsort(-known.frequency)[:COMMON].tolist())
    for tensor in known.tensors:
        dictionary, shares = known.of(tensor), []
        for seed in range(6):
            telling = {token for token in attacked.passages(1, seed=seed, length=12)[0] if token not in usual}
            guesses = known.recover(view_of(noise(attacked.layout, seed)), dictionary, 12)
            shares.append(len(telling & set(guesses)) / max(1, len(telling)))
        assert np.mean(shares) < 0.25, tensor


def test_the_first_layer_s_inputs_are_those_of_the_attack_on_the_first_block(attacked, known):
    tensors, atoms = first_module.first_inputs(attacked.folder, LORA)
    assert tensors == tuple(sorted(known.first))
    np.testing.assert_allclose(next(iter(known.inputs.values())), atoms, rtol=1e-5, atol=1e-6)


def test_the_atoms_of_a_second_factor_are_what_the_first_makes_of_the_inputs(attacked, known):
    """The gradient of one passage by lora_B has its rows in the span of the passage's own inputs, told by lora_A."""
    dictionary = known.of(BLOCK.format(0, "q_proj.lora_B"))
    assert dictionary.whitener.shape == (LORA.rank, LORA.rank)
    assert dictionary.whitened.shape == (512, LORA.rank)


def test_an_unknown_tensor_or_a_single_passage_is_refused(attacked, known):
    for name in ("x", BLOCK.format(0, "q_proj.lora_magnitude_vector"), BLOCK.format(7, "q_proj.lora_A")):
        with pytest.raises(InputError, match="no attack"):
            known.of(name)
    with pytest.raises(InputError, match="no other"):
        leakage_by_tensor(
            attacked.folder, LORA, attacked.adapter, passages=attacked.public[:1], public=attacked.public, common=1
        )
