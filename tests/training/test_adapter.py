import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import GatekeeperError, ModelError, UntrustedError
from fedpriv.study.plan import LoraChoice
from fedpriv.training import adapter as ad

SMALL = {"base_model.model.x.lora_A.weight": (2, 3), "base_model.model.x.lora_B.weight": (4, 2)}


def test_importing_it_imports_no_torch():
    code = "import sys, fedpriv.training.adapter, fedpriv.training.base_model, fedpriv.training.jobs; "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_layout_is_what_peft_makes(tiny, layout):
    from fedpriv.training.model import adapter_parameters, load_model

    parameters = adapter_parameters(load_model(tiny.folder, LoraChoice()))
    assert {name: tuple(p.shape) for name, p in parameters.items()} == layout
    assert list(layout) == sorted(layout)


@pytest.mark.parametrize("target", ["no_such_layer", "lm_head", "embed_tokens", "norm"])
def test_targets_that_lora_cannot_adapt_are_refused(tiny, target):
    with pytest.raises(ModelError, match=target):
        ad.lora_layout(tiny.folder, LoraChoice(targets=("q_proj", target)))


def test_initial_adapter_is_pinned_bit_by_bit():
    state = ad.initial_adapter(SMALL, seed=3)
    assert ad.adapter_digest(state) == ad.adapter_digest(ad.initial_adapter(dict(reversed(SMALL.items())), seed=3))
    assert ad.adapter_digest(state) == PINNED, "every domain must start from the same bits, whatever its machine"
    assert ad.adapter_digest(state) != ad.adapter_digest(ad.initial_adapter(SMALL, seed=4))
    assert not state["base_model.model.x.lora_B.weight"].any()


PINNED = "f87b743cd65c75b14b46b9607dc4255fe4ebac4e473bbb4605d0067b056f3799"


def test_lora_a_is_kaiming_uniform():
    values = ad.initial_adapter({"m.lora_A.weight": (64, 576)}, seed=0)["m.lora_A.weight"]
    bound = 576**-0.5
    assert np.abs(values).max() <= bound
    assert abs(float(values.mean())) < bound / 100
    assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.01)


def test_digests_tell_layout_from_values():
    state = ad.initial_adapter(SMALL, seed=3)
    other = {name: array + np.float32(1) for name, array in state.items()}
    assert ad.layout_digest(ad.layout_of(state)) == ad.layout_digest(ad.layout_of(other))
    assert ad.adapter_digest(state) != ad.adapter_digest(other)


@given(seed=st.integers(0, 2**31 - 1))
def test_flatten_and_unflatten_are_inverse(seed):
    state = {n: np.random.default_rng(seed).normal(size=s).astype(np.float32) for n, s in SMALL.items()}
    vector = ad.flatten(state)
    assert vector.dtype == np.float32 and vector.shape == (14,)
    assert ad.adapter_digest(ad.unflatten(vector, state)) == ad.adapter_digest(state)
    with pytest.raises(GatekeeperError):
        ad.unflatten(vector[:-1], state)


def test_saved_state_is_private_and_comes_back(tmp_path):
    state = ad.initial_adapter(SMALL, seed=3)
    path = tmp_path / "a.safetensors"
    ad.save_state(state, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ad.adapter_digest(ad.load_state(path, SMALL)) == ad.adapter_digest(state)


def write_tensors(path, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("base_model.model.x.lora_A.weight"), "does not have the plan's parameter"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "that the plan does not have"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": np.zeros((3, 2), np.float32)}), "shape"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": np.zeros((2, 3), np.float64)}), "not of type F32"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": np.full((2, 3), np.nan, np.float32)}), "finite"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": np.full((2, 3), np.inf, np.float32)}), "finite"),
    ],
)
def test_load_refuses_what_the_plan_did_not_say(tmp_path, change, words):
    tensors = {name: np.zeros(shape, np.float32) for name, shape in SMALL.items()}
    change(tensors)
    with pytest.raises(GatekeeperError, match=words):
        ad.load_state(write_tensors(tmp_path / "a.safetensors", tensors), SMALL)


def test_load_refuses_links_pipes_missing_large_and_garbled_files(tmp_path):
    good = tmp_path / "good.safetensors"
    ad.save_state(ad.initial_adapter(SMALL, seed=3), good)
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbled").write_bytes(good.read_bytes()[:-3])
    (tmp_path / "huge").write_bytes(b"")
    os.truncate(tmp_path / "huge", ad.MAX_HEADER_BYTES + 4096)
    for name in ("link", "pipe", "folder", "garbled", "huge", "missing"):
        with pytest.raises(UntrustedError):
            ad.load_state(tmp_path / name, SMALL)


@pytest.mark.parametrize("text", ["[1]", '{"a": "1"}', '{"a": true}', '{"a": null}', '{"a": {"b": 1}}', '{"a": 1e999}'])
def test_metrics_are_numbers_only(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(GatekeeperError):
        ad.load_metrics(tmp_path / "metrics.json")


def test_metrics_nan_is_no_json(tmp_path):
    (tmp_path / "metrics.json").write_text('{"a": NaN}')
    with pytest.raises(UntrustedError):
        ad.load_metrics(tmp_path / "metrics.json")


def test_peft_loads_the_folder_and_computes_with_it(tiny, layout, tmp_path):
    import torch
    from peft import PeftModel
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    from fedpriv.training.model import load_model, put_adapter

    state = ad.initial_adapter(layout, seed=5)
    state = {name: array + np.float32(0.01) for name, array in state.items()}
    folder = ad.write_peft_folder(state, tmp_path / "peft", lora=LoraChoice(), base_model_name="tiny", notes={"a": "b"})
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 8
    theirs = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny.folder), str(folder)).eval()
    ours = load_model(tiny.folder, LoraChoice())
    put_adapter(ours, state)
    tokens = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=tokens).logits, ours.eval()(input_ids=tokens).logits, atol=1e-6)
