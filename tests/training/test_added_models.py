import dataclasses
import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from fedpriv.errors import ConfigError, ExistsError, ModelError
from fedpriv.study.plan import LoraChoice
from fedpriv.training import evaluate_local, lora_layout, starting_adapter, train_local, write_peft_folder
from fedpriv.training.base_model import add_model, ensure_model, hub_id, known_models, list_models, remove_model
from fedpriv.training.find_layers import find_layers
from fedpriv.training.layers import LAYERS, load_layers, row_norms, write_layers
from fedpriv.training.model import adapter_parameters, load_model, put_adapter
from fedpriv.training.usual_targets import usual_targets
from tests.training.architectures import ARCHITECTURES, build


@pytest.fixture(scope="module")
def gpt2(tiny, tmp_path_factory):
    """A model whose weights lie in several files, are named otherwise than its layers, and kept the other way round."""
    folder = tmp_path_factory.mktemp("gpt2")
    build("gpt2", folder, tiny.folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert not (folder / "model.safetensors").exists()
    return folder


@pytest.fixture(scope="module")
def added(gpt2, tmp_path_factory):
    return add_model("our-gpt2", folder=gpt2, cache=tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_adapters_layout_is_the_one_peft_makes(name, tiny, tmp_path):
    targets = build(name, tmp_path, tiny.folder)
    write_layers(tmp_path, find_layers(tmp_path))
    lora = LoraChoice(rank=4, targets=targets, use_dora=True)
    made = {name: tuple(p.shape) for name, p in adapter_parameters(load_model(tmp_path, lora)).items()}
    assert lora_layout(tmp_path, lora) == made
    assert {name: array.shape for name, array in starting_adapter(tmp_path, lora, 0).items()} == made
    assert set(targets) <= {key.split(".")[-1] for key in load_layers(tmp_path)}


def test_tiny_says_of_itself_what_its_model_says(tiny):
    told, found = load_layers(tiny.folder), find_layers(tiny.folder)
    assert {name: layer.inputs for name, layer in told.items()} == {name: found[name].inputs for name in sorted(found)}
    assert all((layer.norms == found[name].norms).all() for name, layer in told.items())


def test_an_added_model_trains_and_its_adapter_is_one_of_peft(added, context, tmp_path):
    lora = LoraChoice(rank=4, targets=usual_targets(added.folder, wished=("q_proj", "v_proj")))
    assert lora.targets == ("c_attn",)
    adapter = starting_adapter(added.folder, lora, 0)
    choice = context.training.model_copy(update={"learning_rate": 0.01, "steps": 8})
    context = dataclasses.replace(
        context, model_folder=added.folder, adapter=adapter, trained=tuple(adapter), lora=lora, training=choice
    )
    before = evaluate_local(context)["heldout_loss"]
    after = train_local(context).adapter_after
    assert evaluate_local(dataclasses.replace(context, adapter=after))["heldout_loss"] < before - 0.02
    write_peft_folder(after, tmp_path / "release", lora=lora, base_model_name="our-gpt2")
    base = AutoModelForCausalLM.from_pretrained(added.folder)
    released, ours = PeftModel.from_pretrained(base, tmp_path / "release").eval(), load_model(added.folder, lora).eval()
    put_adapter(ours, after)
    tokens = torch.arange(3, 30).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=tokens).logits, released(input_ids=tokens).logits, atol=1e-5)


def test_it_is_known_by_its_name_with_a_digest_of_all_its_weights(added, gpt2):
    cache = added.folder.parents[1]
    assert added.source == "folder"
    assert added.weights_bytes == sum(path.stat().st_size for path in gpt2.glob("*.safetensors"))
    assert ensure_model("our-gpt2", cache=cache) == added == list_models(cache)[0]
    assert known_models(cache) == ("our-gpt2", "smollm2-135m-instruct", "tiny")
    assert hub_id("our-gpt2", cache=cache) == "our-gpt2"
    weight = find_layers(gpt2)["transformer.h.0.attn.c_attn"]
    assert (weight.inputs, weight.outputs) == (64, 192)
    state = AutoModelForCausalLM.from_pretrained(gpt2).state_dict()
    assert (weight.norms == row_norms(state["transformer.h.0.attn.c_attn.weight"].t().numpy())).all()


def test_a_change_of_its_files_is_noticed_and_it_can_be_removed(gpt2, tmp_path):
    added = add_model("ours", folder=gpt2, cache=tmp_path)
    with pytest.raises(ExistsError, match="already"):
        add_model("ours", folder=gpt2, cache=tmp_path)
    shard = next(added.folder.glob("model-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="changed since it was added"):
        ensure_model("ours", cache=tmp_path)
    remove_model("ours", cache=tmp_path)
    with pytest.raises(ModelError, match="fedpriv model add"):
        ensure_model("ours", cache=tmp_path)


def test_a_cache_of_before_learns_its_layers(tmp_path):
    model = ensure_model("tiny", cache=tmp_path)
    layers = (model.folder / LAYERS).read_bytes()
    (model.folder / LAYERS).unlink()
    manifest = json.loads((model.folder / "manifest.json").read_text())
    del manifest["files"][LAYERS]
    (model.folder / "manifest.json").write_text(json.dumps(manifest))
    assert ensure_model("tiny", cache=tmp_path) == model
    assert (model.folder / LAYERS).read_bytes() == layers
    assert LAYERS in json.loads((model.folder / "manifest.json").read_text())["files"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: next(folder.glob("model-*")).unlink(), "weights lack the file"),
        (lambda folder: (folder / "model.safetensors.index.json").unlink(), "no weights in safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "came without tokenizer.json"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"x": "../../secret.safetensors"}})
            ),
            "weights lack the file",
        ),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "cannot be used"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"n_layer": 2', '"n_layer": 3')
            ),
            "do not fill the model",
        ),
    ],
    ids=["config", "shard", "index", "tokenizer", "path", "architecture", "missing"],
)
def test_what_is_no_usable_model_is_refused_and_nothing_stays(gpt2, tmp_path, harm, words):
    folder = tmp_path / "model"
    shutil.copytree(gpt2, folder)
    harm(folder)
    with pytest.raises(ModelError, match=words):
        add_model("ours", folder=folder, cache=tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".ours.lock"]


@pytest.mark.parametrize("name", ["../up", "Tiny", "", "a" * 49, "a/b"])
def test_a_name_is_no_path(name, tmp_path, gpt2):
    with pytest.raises(ModelError, match="name"):
        add_model(name, folder=gpt2, cache=tmp_path)


def test_fedprivs_own_names_stay_its_own(tmp_path, gpt2):
    with pytest.raises(ExistsError, match="own"):
        add_model("tiny", folder=gpt2, cache=tmp_path)


def test_the_commands(gpt2, tmp_path, monkeypatch):
    from fedpriv.cli.main import app

    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path))
    run = CliRunner().invoke

    def shown(*arguments):
        done = run(app, ["model", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert "No base model" in shown("list")
    assert "c_attn" in shown("add", "ours", "--folder", str(gpt2))
    (one,) = json.loads(shown("list", "--json"))
    assert one["name"] == "ours"
    assert one["layers"] == ["c_attn", "c_fc", "c_proj"]
    assert "ours" in shown("list")
    assert "whole" in shown("check", "ours")
    assert "Removed" in shown("remove", "ours")
    assert isinstance(run(app, ["model", "add", "ours"]).exception, ConfigError)
