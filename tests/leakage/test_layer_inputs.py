"""What layers get for a tree of partial texts is what they get for each text alone."""

import numpy as np
import pytest

from fedpriv.leakage.first_inputs import first_inputs
from fedpriv.leakage.layer_inputs import LayerInputs, Tree
from tests.leakage.conftest import LORA


@pytest.fixture(scope="module")
def inputs(attacked):
    return LayerInputs(attacked.folder, LORA, attacked.adapter)


def test_the_tensors_that_share_an_input_stand_together_in_the_models_order(inputs):
    names = [[f"base_model.model.model.layers.{n}.self_attn.{x}_proj.lora_A.weight" for x in "qv"] for n in range(2)]
    assert [list(group) for group in inputs.groups] == names
    assert inputs.vocabulary == 512


def test_branches_do_not_see_each_other(inputs):
    tree = Tree()
    trunk = tree.add_text([7, 8, 9])
    branch = tree.add(20, trunk[1])
    leaf = tree.add(11, branch)
    other = tree.add_text([9, 9])
    together = inputs.of(tree, [0, 1])
    for text, nodes in (([7, 8, 9], trunk), ([7, 8, 20, 11], [*trunk[:2], branch, leaf]), ([9, 9], other)):
        alone = Tree()
        alone.add_text(text)
        for one, another in zip(inputs.of(alone, [0, 1]), together, strict=True):
            np.testing.assert_allclose(another[nodes], one, rtol=1e-4, atol=1e-5)


def test_beginnings_are_shared_and_tokens_may_repeat():
    tree = Tree()
    end = tree.add_beginning([5, 5, 6, 5])
    assert (tree.tokens, tree.parents) == ([5, 5, 6, 5], [-1, 0, 1, 2])
    assert tree.add_beginning([5, 5, 6, 5]) == end
    assert tree.parents[tree.add_beginning([5, 5, 7])] == 1
    assert (tree.tokens, tree.parents) == ([5, 5, 6, 5, 7], [-1, 0, 1, 2, 1])
    assert tree.add_beginning([]) == -1


def test_deeper_layers_see_the_context_and_the_first_does_not(inputs):
    tree = Tree()
    one, other = tree.add_text([5, 6])[1], tree.add_text([7, 6])[1]
    first, second = inputs.of(tree, [0, 1])
    np.testing.assert_allclose(first[one], first[other], rtol=1e-5)
    assert np.abs(second[one] - second[other]).max() > 1e-2 * np.abs(second).max()


def test_the_first_layers_inputs_are_the_dictionarys(attacked, inputs):
    _, atoms = first_inputs(attacked.folder, LORA)
    tree = Tree()
    nodes = tree.add_text([3, 100, 400])
    np.testing.assert_allclose(inputs.of(tree, [0])[0][nodes], atoms[[3, 100, 400]], rtol=1e-4, atol=1e-6)
