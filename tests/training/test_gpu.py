"""Training on an NVIDIA GPU, inside the real walls too. Skipped on a machine without one; run them where there is."""

import dataclasses
import importlib.util
import os

import numpy as np
import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the sandbox sets it, before CUDA is first used

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain import ResourcesChoice
from fedpriv.domain.gpu import gpu_files
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.sandbox import bubblewrap
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import TrainingError
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, TrainingChoice
from fedpriv.training import evaluate_local, starting_adapter, train_local
from fedpriv.training.adapter import initial_adapter, load_metrics, load_state, lora_layout, save_state
from fedpriv.training.device import choose_device
from fedpriv.training.model import _load, adapter_parameters, batch_loss, load_model, put_adapter
from fedpriv.training.precision import multiplies_bfloat16
from fedpriv.training.recipe import stock_recipe
from tests.training.test_packed_rows import draw

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")


@pytest.fixture
def on():
    """Choose a device for what follows; models that lie elsewhere are let go."""

    def choose(device):
        _load.cache_clear()
        return choose_device(device)

    yield choose
    choose("cpu")


def moved(adapter):
    """An adapter whose gradients are not zero anywhere."""
    noise = np.random.Generator(np.random.Philox(5))
    return {name: (value + 0.02 * noise.standard_normal(value.shape)).astype("f4") for name, value in adapter.items()}


def gradients(context, adapter, precision="float32"):
    model = load_model(context.model_folder, context.lora, precision)
    put_adapter(model, adapter)
    model.zero_grad()
    with batch_loss(model, draw()) as loss:
        loss.backward()
    return float(loss.detach()), {name: p.grad.cpu().numpy() for name, p in adapter_parameters(model).items()}


def test_a_gpu_is_taken_where_there_is_one(on):
    assert on("auto") == "cuda:0"
    assert on("cpu") == "cpu"


def test_the_gradients_are_those_of_the_processor(on, context):
    adapter = moved(context.adapter)
    on("cpu")
    loss, expected = gradients(context, adapter)
    on("cuda")
    found_loss, found = gradients(context, adapter)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        assert np.abs(found[name] - gradient).max() < 1e-4 * max(np.abs(gradient).max(), 1e-3), name


def test_a_round_gives_the_same_bits_again_and_lowers_the_heldout_loss(on, context):
    on("cuda")
    before = evaluate_local(context)["heldout_loss"]
    first, second = train_local(context), train_local(context)
    assert first.metrics == second.metrics
    for name, value in first.adapter_after.items():
        assert value.tobytes() == second.adapter_after[name].tobytes(), name
    after = evaluate_local(dataclasses.replace(context, adapter=first.adapter_after))["heldout_loss"]
    assert after < before - 0.05
    on("cpu")
    assert evaluate_local(context)["heldout_loss"] == pytest.approx(before, rel=1e-4)
    assert train_local(context).metrics["train_loss"] == pytest.approx(first.metrics["train_loss"], rel=1e-3)


def test_bfloat16_is_what_auto_takes_where_the_gpu_multiplies_it(on, context):
    on("cuda")
    if not multiplies_bfloat16():
        pytest.skip("this GPU does not multiply bfloat16")
    exact, _ = gradients(context, context.adapter)
    rounded, _ = gradients(context, context.adapter, "bfloat16")
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="the extra quantized is not installed")
@pytest.mark.parametrize("lora", [LoraChoice(rank=4), LoraChoice(rank=4, use_dora=True)], ids=["lora", "dora"])
def test_a_base_model_in_four_bits_learns(on, context, lora):
    on("cuda")
    adapter = starting_adapter(context.model_folder, lora, 0)
    choice = context.training.model_copy(update={"precision": "nf4", "steps": 8})
    context = dataclasses.replace(context, adapter=adapter, trained=tuple(adapter), lora=lora, training=choice)
    before = evaluate_local(context)["heldout_loss"]
    outcome = train_local(context)
    after = evaluate_local(dataclasses.replace(context, adapter=outcome.adapter_after))["heldout_loss"]
    assert after < before - 0.05


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    root = tmp_path_factory.mktemp("domain")
    write_synthetic(root / "tables", patients=24, seed=0)
    prepared = prepare(root / "tables", root / "data")
    from fedpriv.training import ensure_model

    model = ensure_model("tiny", cache=root / "cache")
    plan = Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint="3" * 64),
        cohort=tuple(MemberChoice(email=f"{name}@x.org", fingerprint=name * 64) for name in "ab"),
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=1, steps=3, batch_size=3, max_seconds=120, precision="float32"),
    )
    started = []

    def make(name, device):
        recipe = root / "requests" / name / "train.py"
        recipe.parent.mkdir(parents=True)
        recipe.write_text(stock_recipe())
        training = LocalTraining(
            plan=plan,
            folder=StudyFolder(root / "studies" / name),
            recipe=recipe,
            prepared=prepared,
            model=model,
            resources=ResourcesChoice(
                sandbox="required", threads=2, memory_gb=16.0, disk_gb=0.25, processes=64, device=device
            ),
        )
        save_state(initial_adapter(lora_layout(model.folder, LoraChoice()), 0), training.folder.adapter(0))
        started.append(training)
        return training

    yield make
    for training in started:
        training.stop()


def train(study, recipe=None, **options):
    study.recipe.write_text(recipe or stock_recipe())
    output = study.folder.output("train-0001")
    study.run("train", 1, 0, output, lambda step, _: None, **options)
    return output


WHERE = """
import pathlib
from fedpriv.training import train_local
from fedpriv.training.device import training_device
def train(context):
    device = str(training_device())
    outcome = train_local(context)
    shown = sorted(path.name for path in pathlib.Path("/dev").glob("nvidia*"))
    return outcome.__class__(
        adapter_after=outcome.adapter_after,
        metrics={**outcome.metrics, "train_loss": outcome.metrics["train_loss"] + 1000.0 * (device == "cuda:0")},
    ) if shown else outcome
"""

CANNOT = """
import os, pathlib, socket, subprocess, torch
from fedpriv.training import train_local
def train(context):
    outcome = train_local(context)
    assert torch.zeros(4, device="cuda").sum().item() == 0.0
    ways = [
        socket.socket,
        os.fork,
        lambda: subprocess.run(["true"]),
        lambda: pathlib.Path("/dev/nvidia-of-mine").write_text("x"),
        lambda: pathlib.Path("/etc/passwd").read_text(),
        lambda: pathlib.Path("/root").iterdir().__next__(),
    ]
    for number, way in enumerate(ways):
        try:
            way()
        except OSError:
            continue
        raise RuntimeError(f"way {number} was open")
    return outcome
"""


@pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
def test_inside_the_walls_a_job_trains_on_the_gpu_what_the_processor_trains(make):
    on_cpu = train(make("cpu", "cpu"), evaluate=True)
    study = make("gpu", "cuda")
    on_gpu = train(study, evaluate=True)
    expected, found = (load_state(folder / "adapter_after.safetensors") for folder in (on_cpu, on_gpu))
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-4
    metrics = load_metrics(on_gpu / "metrics.json")
    for name, value in load_metrics(on_cpu / "metrics.json").items():
        assert metrics[name] == pytest.approx(value, rel=1e-4)
    told = load_metrics(train(study, WHERE) / "metrics.json")
    assert told["train_loss"] > 1000, "it really was the GPU"


@pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
def test_the_walls_hold_on_the_gpu(make):
    train(make("walls", "cuda"), CANNOT)
    with pytest.raises(TrainingError):
        train(make("open", "cuda"), CANNOT.replace("except OSError", "except KeyError"))


@pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
def test_a_domain_that_trains_on_the_processor_shows_no_gpu(make):
    study = make("hidden", "cpu")
    assert gpu_files("cuda"), "there is one to be shown"
    assert load_metrics(train(study, WHERE) / "metrics.json")["train_loss"] < 1000
