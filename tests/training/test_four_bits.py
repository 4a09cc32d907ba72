import dataclasses
import importlib.util

import pytest
import torch
from peft.utils.integrations import dequantize_module_weight

from fedpriv.errors import ModelError
from fedpriv.study.plan import LoraChoice
from fedpriv.training import evaluate_local, starting_adapter, train_local
from fedpriv.training.model import adapter_parameters, base_of, batch_loss, load_model, put_adapter
from tests.training.test_dora import moved
from tests.training.test_packed_rows import draw

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes, of the extra quantized, is not installed")
LORA = LoraChoice(rank=4)


def gradients(model, batch):
    model.zero_grad()
    with batch_loss(model, batch) as loss:
        loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in adapter_parameters(model).items()}


def test_the_gradient_is_that_of_the_unpacked_weights_also_after_an_evaluation(tiny):
    packed = load_model(tiny.folder, LORA, "nf4")
    unpacked = {
        name: dequantize_module_weight(module).float()
        for name, module in base_of(packed).named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    }
    assert len(unpacked) == 14, "all linear layers but the output layer"
    put_adapter(packed, moved(starting_adapter(tiny.folder, LORA, 0)))
    packed.eval()
    batch = draw()
    with torch.no_grad(), batch_loss(packed, batch) as evaluated:
        before = float(evaluated)
    packed.train()
    loss, found = gradients(packed, batch)
    full = load_model(tiny.folder, LORA, "float32")
    for name, module in base_of(full).named_modules():
        if name in unpacked:
            module.weight.data.copy_(unpacked[name])
    put_adapter(full, moved(starting_adapter(tiny.folder, LORA, 0)))
    expected_loss, expected = gradients(full, batch)
    assert loss == pytest.approx(before, rel=1e-5)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("lora", [LORA, LoraChoice(rank=4, use_dora=True)], ids=["lora", "dora"])
def test_rounds_lower_the_heldout_loss(context, lora):
    adapter = starting_adapter(context.model_folder, lora, 0)
    choice = context.training.model_copy(update={"precision": "nf4", "steps": 8})
    context = dataclasses.replace(context, adapter=adapter, trained=tuple(adapter), lora=lora, training=choice)
    before = evaluate_local(context)["heldout_loss"]
    outcome = train_local(context)
    after = evaluate_local(dataclasses.replace(context, adapter=outcome.adapter_after))["heldout_loss"]
    assert after < before - 0.05


def test_without_bitsandbytes_the_error_says_what_to_install(tiny, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with pytest.raises(ModelError, match=r"fedpriv\[quantized\]"):
        load_model(tiny.folder, LoraChoice(rank=5), "nf4")
