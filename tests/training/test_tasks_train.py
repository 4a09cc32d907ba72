"""Every task from tables to a trained adapter: real demo admissions, and synthetic ones for the notes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fedpriv.clinical import Telling, prepare, write_synthetic
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.study.task import TaskChoice
from fedpriv.training.adapter import initial_adapter, load_metrics, load_state, lora_layout, save_state
from fedpriv.training.base_model import ensure_model
from fedpriv.training.jobs import Job, do_job

TASKS = ("language_modelling", "mortality", "icd9_chapters", "readmission")
LORA = LoraChoice()
MOST_TOKENS = {"language_modelling": 256, "mortality": 256, "icd9_chapters": 768, "readmission": 256}
"""19 questions alone take 608 of the tiny model's tokens."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The MIMIC-III demo with its sample of laboratory values under MIMIC-III's own name."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iii-demo"
    given = Path(os.environ.get("FEDPRIV_TEST_DATA", beside))
    if not (given / "PATIENTS.csv.gz").is_file():
        pytest.skip(f"the MIMIC-III demo is not at {given}; set FEDPRIV_TEST_DATA to its folder")
    folder = tmp_path_factory.mktemp("demo")
    for path in given.glob("*.csv.gz"):
        shutil.copy(path, folder / path.name.replace(".sample70", ""))
    return folder


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tables"
    write_synthetic(folder, patients=60)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """One store for all tests: tables are harmonised once, told once for each task, and never written by a test."""
    return tmp_path_factory.mktemp("store")


def run(data, folder: Path, kind: str, adapter: Path, **training) -> dict[str, float]:
    model = ensure_model("tiny")
    folder.mkdir()
    job = {
        "id": "task",
        "job": kind,
        "model_folder": str(model.folder),
        "adapter": str(adapter),
        "train": str(data.train),
        "heldout": str(data.heldout),
        "lora": LORA.model_dump(mode="json"),
        "training": TrainingChoice(**training).model_dump(mode="json"),
        "threads": 1,
        "out": str(folder),
    }
    do_job(Job.model_validate_json(json.dumps(job)), lambda step, steps: None)
    return load_metrics(folder / "metrics.json")


@pytest.mark.parametrize(
    ("tables", "kind"),
    [*(("demo", kind) for kind in TASKS), ("synthetic", "mortality"), ("synthetic", "readmission")],
)
def test_a_round_of_every_task_lowers_the_heldout_loss(tables, kind, store, tmp_path, request):
    data = prepare(request.getfixturevalue(tables), store / tables, telling=Telling(task=TaskChoice(kind=kind)))
    lines = [json.loads(line) for line in data.train.read_bytes().splitlines()]
    questions = TaskChoice(kind=kind).questions
    assert {tuple(line.get("questions", ())) for line in lines} == {questions}
    layout = lora_layout(ensure_model("tiny").folder, LORA)
    save_state(initial_adapter(layout, 0), tmp_path / "start.safetensors")
    most = MOST_TOKENS[kind]
    training = {"max_tokens": most, "steps": 6, "batch_size": 4, "learning_rate": 0.02}
    before = run(data, tmp_path / "before", "evaluate", tmp_path / "start.safetensors", max_tokens=most)
    run(data, tmp_path / "trained", "train", tmp_path / "start.safetensors", **training)
    after_path = tmp_path / "trained" / "adapter_after.safetensors"
    assert set(load_state(after_path, layout)) == set(layout)
    after = run(data, tmp_path / "after", "evaluate", after_path, max_tokens=most)
    assert after["heldout_loss"] < before["heldout_loss"]
    if questions:
        assert before["heldout_tokens"] == len(questions) * before["heldout_examples"]


def test_answers_are_the_model_s_own_and_their_first_one_is_that_of_the_loss(synthetic, store):
    """The probability of yes, read with kept keys and values, against the logits of the whole example."""
    import torch

    from fedpriv.training.answering import yes_probabilities
    from fedpriv.training.examples import Encoder, read_lines
    from fedpriv.training.loss import wanted_logits
    from fedpriv.training.model import base_of, load_model

    data = prepare(synthetic, store / "synthetic", telling=Telling(task=TaskChoice(kind="icd9_chapters")))
    model, encoder = (
        load_model(ensure_model("tiny").folder, LORA),
        Encoder(ensure_model("tiny").folder, MOST_TOKENS["icd9_chapters"]),
    )
    model.eval()
    (example,) = encoder.encode(read_lines(data.heldout, limit=1))
    told = yes_probabilities(model, [example], encoder.answer_tokens)[0]
    yes, no = encoder.answer_tokens
    ids = list(example.ids)
    for position, probability in zip(example.answers, told, strict=True):
        wanted = torch.zeros(1, position, dtype=torch.bool)
        wanted[0, -1] = True
        with torch.no_grad():
            pair = wanted_logits(base_of(model), torch.tensor([ids[:position]]), wanted)[0, [yes, no]]
        assert float(torch.softmax(pair, 0)[0]) == pytest.approx(probability, abs=1e-5)
        ids[position] = yes if probability > 0.5 else no
