import json

import numpy as np
import pytest

from fedpriv.errors import TrainingError
from fedpriv.study.plan import LoraChoice
from fedpriv.training.sensitivity import measure_sensitivity
from tests.training.conftest import LORA, TRAINING

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def measured(tiny, shard):
    return measure_sensitivity(tiny.folder, shard / "train.jsonl", lora=LORA, training=TRAINING, notes=6)


def independent_spread(folder, texts, adapter, lora, max_tokens):
    """The same number by transformers' own loss, autograd and numpy, with every gradient in memory at once."""
    import torch
    from transformers import AutoTokenizer

    from fedpriv.training.model import adapter_parameters, load_model, put_adapter

    model = load_model(folder, lora)
    put_adapter(model, adapter)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    gradients = {name: [] for name in adapter}
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens]])
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        for name, parameter in adapter_parameters(model).items():
            gradients[name].append(parameter.grad.double().numpy().ravel())
    return {name: float(((np.array(g) - np.mean(g, axis=0)) ** 2).sum(axis=1).mean()) for name, g in gradients.items()}


def test_the_spread_is_that_of_the_formula(tiny, shard, adapter, monkeypatch):
    from fedpriv.training import sensitivity

    order = [3, 0, 7, 20]
    monkeypatch.setattr(sensitivity, "example_order", lambda count, seed, start: iter(order))
    trained = {}
    real = sensitivity.train_local

    def remember(context):
        outcome = real(context)
        trained.update(outcome.adapter_after)
        return outcome

    monkeypatch.setattr(sensitivity, "train_local", remember)
    path = shard / "train.jsonl"
    found = measure_sensitivity(tiny.folder, path, lora=LORA, training=TRAINING, notes=4)
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    expected = independent_spread(tiny.folder, [texts[n] for n in order], trained, LORA, TRAINING.max_tokens)
    assert found.spread == pytest.approx(expected, rel=1e-3)


def test_every_tensor_is_measured_after_the_steps(measured, layout):
    assert list(measured.spread) == sorted(layout)
    assert (measured.notes, measured.steps) == (6, TRAINING.steps)
    assert all(value > 0 for value in measured.spread.values())  # lora_A too, which starts with gradients of zero


def test_it_is_the_same_every_time_and_says_how_far_it_is(tiny, shard, measured):
    told = []
    again = measure_sensitivity(
        tiny.folder,
        shard / "train.jsonl",
        lora=LORA,
        training=TRAINING,
        notes=6,
        report=lambda *step: told.append(step),
    )
    assert again == measured
    assert told == [
        *(("training", step, TRAINING.steps) for step in range(1, TRAINING.steps + 1)),
        *(("measuring", note, 6) for note in range(1, 7)),
    ]


def test_it_works_with_dropout_and_takes_all_notes_if_there_are_few(tiny, shard, tmp_path):
    lines = (shard / "train.jsonl").read_text().splitlines()[:3]
    (tmp_path / "few.jsonl").write_text("\n".join(lines))
    lora = LoraChoice(rank=2, alpha=4, dropout=0.5, targets=("o_proj",))
    found = measure_sensitivity(tiny.folder, tmp_path / "few.jsonl", lora=lora, training=TRAINING, notes=50)
    assert found.notes == 3
    assert len(found.spread) == 4


@pytest.mark.parametrize(
    ("texts", "notes", "sentence"),
    [
        (["one note of some words"], 16, "at least two notes"),
        (["", "a"], 16, "at least two notes"),
        (["a note of words", "another note"], 1, "at least two notes"),
        (["the same note"] * 4, 16, "No gradient differs"),
    ],
)
def test_notes_that_cannot_be_told_apart_are_refused(tiny, tmp_path, texts, notes, sentence):
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.raises(TrainingError, match=sentence):
        measure_sensitivity(tiny.folder, path, lora=LORA, training=TRAINING, notes=notes)
