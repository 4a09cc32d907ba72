"""Token recovery names the tokens where it must, and is at chance where it cannot."""

import numpy as np
import pytest

from fedpriv.errors import InputError, ModelError
from fedpriv.leakage import ADAPTIVE_NOISE, View, gradient_of, read_tokens, recover_tokens, sgd_update, token_dictionary
from fedpriv.leakage.first_inputs import first_inputs
from fedpriv.leakage.screening import recover_likely_tokens
from fedpriv.study.plan import LoraChoice
from tests.leakage.conftest import COMMON, LORA, noise, view_of


def named(secret, guesses):
    return len(secret & set(guesses)) / len(secret)


def attack(attacked, make, seeds, *, count=1, dictionary=None, recover=recover_tokens):
    """The share of distinct tokens that is named, and of those that are not common; means over passages."""
    dictionary = dictionary or attacked.dictionary
    shares = []
    for seed in seeds:
        batch = attacked.passages(count, seed=seed)
        secret = read_tokens(batch)
        guesses = recover(view_of(make(batch, seed)), dictionary, len(secret))
        assert len(guesses) == len(set(guesses)) == len(secret)
        shares.append((named(secret, guesses), named(secret - dictionary.common(COMMON), guesses)))
    return np.mean(shares, axis=0)


def test_the_inputs_of_the_first_layer_are_the_normed_embeddings(attacked):
    """Compared with the model's own weights, read from the file."""
    from safetensors.numpy import load_file

    tensors, atoms = first_inputs(attacked.folder, LORA)
    weights = load_file(attacked.folder / "model.safetensors")
    embeddings = weights["model.embed_tokens.weight"].astype(np.float64)
    normed = embeddings / np.sqrt((embeddings**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(atoms, normed * weights["model.layers.0.input_layernorm.weight"], rtol=1e-4, atol=1e-6)
    assert tensors == tuple(f"base_model.model.model.layers.0.self_attn.{x}_proj.lora_A.weight" for x in "qv")


def test_where_the_first_adapted_layer_sees_more_than_tokens_it_is_said(attacked):
    with pytest.raises(ModelError, match="more than single tokens"):
        first_inputs(attacked.folder, LoraChoice(targets=("o_proj",)))


def test_positive_control_one_gradient_gives_every_token_away(attacked):
    all_tokens, telling = attack(
        attacked, lambda batch, _: gradient_of(attacked.folder, LORA, attacked.adapter, batch), range(5)
    )
    assert all_tokens > 0.99
    assert telling > 0.99


def test_positive_control_a_step_of_gradient_descent_does_as_well(attacked):
    def make(batch, _seed):
        return sgd_update(attacked.folder, LORA, attacked.adapter, [batch], rate=0.1)

    assert attack(attacked, make, range(3)).min() > 0.99


def test_two_notes_at_a_time_do_not_hide_each_other(attacked):
    def make(batch, _seed):
        return gradient_of(attacked.folder, LORA, attacked.adapter, batch)

    assert attack(attacked, make, range(3), count=2).min() > 0.9


@pytest.fixture(scope="module")
def adaptive(attacked):
    """What an attacker knows who expects steps of AdamW and has the round's first adapter."""
    return token_dictionary(attacked.folder, LORA, attacked.public, noise=ADAPTIVE_NOISE, adapter=attacked.adapter)


def signs(layout, seed):
    """As AdamW makes of noise: every coordinate about as large."""
    return {name: 1e-3 * np.sign(value) for name, value in noise(layout, seed).items()}


@pytest.mark.parametrize("recover", [recover_tokens, recover_likely_tokens])
@pytest.mark.parametrize("made", [noise, signs])
@pytest.mark.parametrize("knows_adamw", [False, True])
def test_negative_control_no_way_to_attack_names_telling_tokens_of_a_random_update(
    attacked, adaptive, recover, made, knows_adamw
):
    dictionary = adaptive if knows_adamw else attacked.dictionary
    _, telling = attack(
        attacked, lambda _, seed: made(attacked.layout, seed), range(20), dictionary=dictionary, recover=recover
    )
    assert telling < 0.15


def test_negative_control_an_update_of_other_notes_says_little_about_these(attacked):
    def make(_batch, seed):
        other = attacked.passages(1, seed=100 + seed)
        return gradient_of(attacked.folder, LORA, attacked.adapter, other)

    _, telling = attack(attacked, make, range(10))
    assert telling < 0.35  # made-up notes share words


def adamw_update(attacked, batch, rate=2e-3):
    """The first step of AdamW from an empty state: the sign of the gradient, but for epsilon."""
    gradient = gradient_of(attacked.folder, LORA, attacked.adapter, batch)
    return {name: (-rate * g / (np.abs(g) + 1e-8)).astype(np.float32) for name, g in gradient.items()}


def test_adamw_hides_less_than_it_seems_from_an_attack_that_knows_of_it(attacked):
    knowing = token_dictionary(attacked.folder, LORA, attacked.public, noise=ADAPTIVE_NOISE)
    plain = attack(attacked, lambda batch, _: adamw_update(attacked, batch), range(8))
    adapted = attack(attacked, lambda batch, _: adamw_update(attacked, batch), range(8), dictionary=knowing)
    assert adapted[1] > plain[1]
    assert adapted[1] > 0.3


def test_hiding_the_first_block_hides_less_than_all_from_an_attack_that_knows_the_adapter(attacked):
    """Not much less here: in a random model an input of the second block is mostly its context."""
    knowing = token_dictionary(attacked.folder, LORA, attacked.public, adapter=attacked.adapter)
    hidden = frozenset(attacked.dictionary.tensors)

    def make(batch, _seed):
        gradient = gradient_of(attacked.folder, LORA, attacked.adapter, batch)
        return {name: value for name, value in gradient.items() if name not in hidden}

    assert attack(attacked, make, range(8))[1] == 0  # by frequency alone
    assert attack(attacked, make, range(8), dictionary=knowing)[1] > 0.04


def test_at_the_very_start_the_first_factor_tells_nothing(attacked):
    """Where all of lora_B is zero, the gradient of lora_A is: the guesses are those of frequency alone."""
    cold = {name: np.zeros_like(value) if ".lora_B." in name else value for name, value in attacked.adapter.items()}
    batch = attacked.passages(1, seed=0)
    view = view_of(gradient_of(attacked.folder, LORA, cold, batch))
    assert list(recover_tokens(view, attacked.dictionary, 20)) == attacked.dictionary.by_frequency[:20]


def test_without_a_visible_tensor_frequency_is_all_there_is(attacked):
    empty = View(party="nobody", levels={}, tensors={})
    assert list(recover_tokens(empty, attacked.dictionary, 20)) == attacked.dictionary.by_frequency[:20]


def test_an_update_that_is_not_finite_is_refused(attacked):
    update = noise(attacked.layout, 1)
    update[attacked.dictionary.tensors[0]][0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        recover_tokens(view_of(update), attacked.dictionary, 5)
