import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import LoraLayer
from transformers import AutoModelForCausalLM

from fedpriv.study.plan import LoraChoice
from fedpriv.training import LocalContext, starting_adapter, train_local, write_peft_folder
from fedpriv.training.adapter import MAGNITUDE
from fedpriv.training.dora import RowNorms
from fedpriv.training.layers import row_norms
from fedpriv.training.model import adapter_parameters, base_of, load_model, put_adapter
from fedpriv.training.traits import computing
from tests.training.architectures import build
from tests.training.conftest import TRAINING

DORA = LoraChoice(rank=4, use_dora=True)
TOKENS = torch.arange(3, 40).unsqueeze(0)


def moved(adapter, seed=0):
    draw = np.random.default_rng(seed)
    return {name: (array + draw.normal(0, 0.05, array.shape)).astype(np.float32) for name, array in adapter.items()}


def logits(model):
    with torch.no_grad(), computing(base_of(model)):
        return model(input_ids=TOKENS).logits


@given(rows=st.integers(1, 5), columns=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_row_norms_are_those_of_exact_arithmetic(rows, columns, seed):
    import math

    weight = np.random.default_rng(seed).normal(0, 1, (rows, columns)).astype(np.float32)
    exact = [math.sqrt(math.fsum(float(x) ** 2 for x in row)) for row in weight]
    assert np.allclose(row_norms(weight), exact, rtol=1e-7)
    assert row_norms(weight).dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "nf4"])
def test_the_starting_adapter_changes_nothing(tiny, precision):
    model = load_model(tiny.folder, DORA, precision)
    put_adapter(model, starting_adapter(tiny.folder, DORA, 3))
    with model.disable_adapter():
        without = logits(model)
    assert torch.equal(logits(model), without)


def test_it_computes_and_learns_what_peft_does(tiny):
    adapter = moved(starting_adapter(tiny.folder, DORA, 3))
    model = load_model(tiny.folder, DORA)
    put_adapter(model, adapter)

    def measured():
        model.zero_grad()
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        return logits(model), {name: p.grad.clone() for name, p in adapter_parameters(model).items()}

    ours, gradients = measured()
    layers = [module for module in model.modules() if isinstance(module, RowNorms)]
    assert len(layers) == 4
    for module in layers:
        module.__class__ = DoraLinearLayer
    try:
        theirs, expected = measured()
    finally:
        for module in layers:
            module.__class__ = RowNorms
    assert torch.allclose(ours, theirs, atol=1e-4)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name


def test_a_round_trains_the_magnitudes_and_the_release_is_peft(tiny, shard, tmp_path):
    adapter = starting_adapter(tiny.folder, DORA, 0)
    context = LocalContext(
        model_folder=tiny.folder,
        adapter=adapter,
        trained=tuple(adapter),
        train=shard / "train.jsonl",
        heldout=shard / "heldout.jsonl",
        lora=DORA,
        training=TRAINING,
        round=1,
        seed=7,
        threads=1,
    )
    after = train_local(context).adapter_after
    magnitudes = [name for name in after if name.endswith(MAGNITUDE)]
    assert len(magnitudes) == 4
    assert all(not np.array_equal(after[name], adapter[name]) for name in magnitudes)
    write_peft_folder(after, tmp_path / "release", lora=DORA, base_model_name="tiny")
    base = AutoModelForCausalLM.from_pretrained(tiny.folder)
    released = PeftModel.from_pretrained(base, tmp_path / "release")
    model = load_model(tiny.folder, DORA)
    put_adapter(model, after)
    with model.disable_adapter():
        assert (logits(model) - logits(released)).abs().max() > 1e-3, "the adapter does nothing"
    assert torch.allclose(logits(model), logits(released), atol=1e-4)


def test_layers_that_keep_their_weights_the_other_way_round(tiny, tmp_path):
    from fedpriv.training.find_layers import find_layers
    from fedpriv.training.layers import write_layers

    targets = build("gpt2", tmp_path, tiny.folder)
    write_layers(tmp_path, find_layers(tmp_path))
    lora = LoraChoice(rank=4, targets=targets, use_dora=True)
    model = load_model(tmp_path, lora)
    put_adapter(model, starting_adapter(tmp_path, lora, 0))
    with model.disable_adapter():
        without = logits(model)
    assert torch.allclose(logits(model), without, atol=1e-6)
    assert base_of(model).config.model_type == "gpt2"


def test_rank_stabilised_scaling(tiny):
    plain, stable = (load_model(tiny.folder, LoraChoice(rank=16, rslora=on)) for on in (False, True))
    scaling = [
        next(module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer))
        for model in (plain, stable)
    ]
    assert scaling == [1.0, 4.0]  # 16 / 16, 16 / sqrt(16)
