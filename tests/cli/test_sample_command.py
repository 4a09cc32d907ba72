"""`fedpriv study sample`, as a researcher types it: no store, no domain, only what the study's folder has."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.cli.sample import _shown
from fedpriv.errors import GatekeeperError, StudyError
from fedpriv.researcher import Researcher, Study
from fedpriv.researcher.events import AdapterReleased
from fedpriv.training import adapter_digest, ensure_model, initial_adapter, lora_layout, save_state, write_peft_folder

DOMAINS = ["--domain", f"a@x.org={'2' * 64}", "--domain", f"b@x.org={'3' * 64}"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPRIV_CACHE", str(root / "cache"))
        patch.setenv("COLUMNS", "120")
        home = root / "home"
        assert run("study", "init", "--email", "ada@y.org", "--store", root / "store", home=home).exit_code == 0
        for name, options in (("notes", ()), ("death", ("--task", "mortality"))):
            made = run("study", "new", name, *DOMAINS, "--model", "tiny", *options, home=home)
            assert made.exit_code == 0, made.output
        shutil.rmtree(root / "store")
        yield home
        assert not (root / "store").exists()


def run(*arguments, home):
    return CliRunner().invoke(app, [*map(str, arguments), "--home", str(home)])


def sample(home, name, *options):
    done = run("study", "sample", name, *options, "--json", home=home)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def adapter_of(study, size, seed=0):
    """An adapter whose change has about this size."""
    state = initial_adapter(lora_layout(ensure_model("tiny").folder, study.plan.lora), 0)
    draw = np.random.default_rng(seed)
    return {
        name: value + size * draw.normal(size=value.shape).astype(np.float32) if ".lora_B." in name else value
        for name, value in state.items()
    }


@pytest.fixture
def study(home, request):
    found = Study.open(Researcher.open(home), request.param)
    state = adapter_of(found, 0.3)
    save_state(state, found.folder.state / "adapter.safetensors")
    found.history(AdapterReleased(study="0" * 64, folder="adapter", adapter_sha256=adapter_digest(state)))
    yield found
    (found.folder.state / "adapter.safetensors").unlink()


@pytest.mark.parametrize("study", ["notes"], indirect=True)
def test_texts_go_on_with_the_adapter_and_without(home, study, tmp_path):
    found = sample(home, "notes", "--prompts", 2, "--tokens", 12)
    assert found["prompts"] == "made up (mock)" and found["answered"] == []
    assert len(found["written"]) == 2
    assert all(text["prompt"] and text["base"] and text["base"] != text["adapted"] for text in found["written"])
    assert sample(home, "notes", "--prompts", 2, "--tokens", 12) == found
    write_peft_folder(adapter_of(study, 0.0), tmp_path / "nothing", lora=study.plan.lora, base_model_name="tiny")
    same = sample(home, "notes", "--prompts", 2, "--tokens", 12, "--adapter", tmp_path / "nothing")
    for text, before in zip(same["written"], found["written"], strict=True):
        assert text["adapted"] == text["base"] == before["base"]
    shown = run("study", "sample", "notes", "--prompts", 1, "--tokens", 12, home=home)
    assert "without the adapter" in shown.output and "All texts are made up; they are no measure" in shown.output


@pytest.mark.parametrize("study", ["notes"], indirect=True)
def test_drawn_words_depend_on_the_seed_alone(home, study):
    options = ("--prompts", 1, "--tokens", 16, "--temperature", 1.5)
    first, again = sample(home, "notes", *options), sample(home, "notes", *options)
    assert first == again
    assert first["written"][0]["base"] != sample(home, "notes", *options[:4])["written"][0]["base"]
    assert sample(home, "notes", *options, "--seed", 1)["written"][0]["prompt"] != first["written"][0]["prompt"]


@pytest.mark.parametrize("study", ["death"], indirect=True)
def test_questions_show_the_chance_of_yes_before_and_after(home, study):
    found = sample(home, "death", "--prompts", 2)
    assert found["written"] == []
    assert len(found["answered"]) == 2
    for asked in found["answered"]:
        assert asked["question"] == "Did the patient die in this stay?"
        assert asked["question"] not in asked["prompt"]
        assert 0 < asked["base"] < 1 and asked["base"] != asked["adapted"]
    shown = run("study", "sample", "death", "--prompts", 1, home=home)
    assert f"{found['answered'][0]['base']:.1%}" in shown.output


def test_without_an_adapter_of_the_plan_nothing_is_shown(home, tmp_path):
    study = Study.open(Researcher.open(home), "notes")
    assert isinstance(run("study", "sample", "notes", home=home).exception, StudyError)
    path = study.folder.state / "adapter.safetensors"
    save_state(adapter_of(study, 0.3, seed=1), path)  # one that came, and was not what the domains had said
    assert isinstance(run("study", "sample", "notes", home=home).exception, StudyError)
    path.unlink()
    assert isinstance(run("study", "sample", "notes", "--adapter", tmp_path, home=home).exception, StudyError)
    other = {name.replace("q_proj", "o_proj"): value for name, value in adapter_of(study, 0.1).items()}
    write_peft_folder(other, tmp_path / "other", lora=study.plan.lora, base_model_name="tiny")
    refused = run("study", "sample", "notes", "--adapter", tmp_path / "other", home=home)
    assert isinstance(refused.exception, GatekeeperError)


def test_what_a_model_writes_does_nothing_to_a_terminal():
    assert _shown("a\x1b[2Jb\nc\u202ed", 100) == "a<U+001B>[2Jb\nc<U+202E>d"
