import dataclasses

import pytest
import torch
import transformers
from architectures import ARCHITECTURES, UNPACKED, build
from torch.nn import functional

from fedpriv.errors import ModelError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import adapter_digest, train_local
from fedpriv.training.examples import IGNORED, Example, collate, labels_of
from fedpriv.training.find_layers import find_layers
from fedpriv.training.local_round import backward
from fedpriv.training.loss import wanted_logits
from fedpriv.training.model import adapter_parameters, base_of, batch_loss, load_model, training_mode
from fedpriv.training.packing import pack, segments
from fedpriv.training.traits import traits_of

LENGTHS = (9, 2, 14, 5)
OWN_LOGITS = {"gemma2", "granite"}
"""Those that cap or scale them."""


def draw(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [Example(tuple(torch.randint(1, 500, (n,), generator=generator).tolist())) for n in lengths]


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    targets = build(request.param, folder, tiny.folder)
    loaded = load_model(folder, LoraChoice(rank=4, targets=targets))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter_parameters(loaded).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    loaded.eval()
    return loaded


def gradients(model):
    return [parameter.grad.clone() for parameter in adapter_parameters(model).values()]


def reference(model, batch):
    """Loss and gradients of transformers itself, each example alone."""
    model.zero_grad()
    total = 0.0
    for example in batch:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0]
        loss = functional.cross_entropy(logits, torch.tensor(labels_of(example)), ignore_index=IGNORED, reduction="sum")
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def test_a_packed_batch_has_the_loss_and_gradients_of_its_examples_alone(model):
    assert traits_of(base_of(model)).packable == (base_of(model).config.model_type not in UNPACKED)
    batch = [*draw(), Example(draw((12,), seed=3)[0].ids, answers=(6, 11))]
    expected, expected_gradients = reference(model, batch)
    model.zero_grad()
    with batch_loss(model, batch) as loss:
        loss.backward()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(gradients(model), expected_gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_models_that_change_their_logits_are_noticed(model):
    assert traits_of(base_of(model)).plain_head == (base_of(model).config.model_type not in OWN_LOGITS)


def test_a_model_that_sees_what_comes_later_is_refused(tiny, tmp_path):
    both_ways = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    transformers.BertLMHeadModel(transformers.BertConfig(**both_ways, intermediate_size=96)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="sees tokens that come later"):
        load_model(tmp_path, LoraChoice(rank=4, targets=("query", "value")))
    with pytest.raises(ModelError, match="sees tokens that come later"):
        find_layers(tmp_path)


def test_padded_batches_have_the_same_loss(model, monkeypatch):
    batch = draw()
    with batch_loss(model, batch) as packed:
        expected = float(packed.detach())
    known = traits_of(base_of(model))
    if not known.packable:
        pytest.skip("its batches are padded anyway, and were compared with single examples")
    monkeypatch.setitem(base_of(model).__dict__, "_fedpriv_traits", dataclasses.replace(known, packable=False))
    with batch_loss(model, batch) as padded:
        assert float(padded.detach()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_one_example_changes_nothing_of_another_ones_logits(model):
    if not traits_of(base_of(model)).packable:
        pytest.skip("its examples are in rows of their own")
    first, second = draw(), draw()
    second[1] = Example((7, 8))

    def logits(batch):
        packed = pack(batch)
        with segments(packed.lengths):
            everything = torch.ones_like(packed.tokens, dtype=torch.bool)
            return wanted_logits(base_of(model), packed.tokens, everything, packed.positions).split(LENGTHS)

    before, after = logits(first), logits(second)
    assert not torch.equal(before[1], after[1])
    for place in (0, 2, 3):
        assert torch.equal(before[place], after[place])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("parts", [1, 3, 9])
def test_parts_and_checkpoints_give_the_same_gradient(context, checkpointing, parts):
    model = load_model(context.model_folder, context.lora)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.full(parameter.shape, 0.02))
    batch = draw()
    expected, expected_gradients = reference(model, batch)
    model.zero_grad()
    with training_mode(model, checkpointing=checkpointing):
        loss, count = backward(model, batch, parts)
    assert (loss, count) == (pytest.approx(expected, rel=1e-5), sum(LENGTHS) - len(LENGTHS))
    for ours, theirs in zip(gradients(model), expected_gradients, strict=True):
        assert torch.allclose(ours * count, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    assert not base_of(model).is_gradient_checkpointing


def test_bfloat16_trains_float32_parameters_to_nearly_the_same_place(context):
    def after(**choices):
        training = TrainingChoice(steps=4, learning_rate=2e-3, **choices)
        return train_local(dataclasses.replace(context, training=training))

    exact, rough, again = after(precision="float32"), after(precision="bfloat16"), after(precision="bfloat16")
    assert adapter_digest(rough.adapter_after) == adapter_digest(again.adapter_after)
    assert adapter_digest(rough.adapter_after) != adapter_digest(exact.adapter_after)
    assert rough.metrics["train_loss"] == pytest.approx(exact.metrics["train_loss"], rel=0.01)
    assert adapter_digest(after(precision="auto").adapter_after) == adapter_digest(exact.adapter_after)  # it is narrow


def test_questions_are_learned(context, tmp_path):
    import json

    path = tmp_path / "asked.jsonl"
    lines = [
        {"text": f"Heart rate {40 + n}", "patient": n, "questions": ["Fast?"], "answers": [["no", "yes"][n > 20]]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = train_local(dataclasses.replace(context, train=path, training=TrainingChoice(steps=12, batch_size=8)))
    assert outcome.metrics["train_tokens"] == 12 * 8
    assert outcome.metrics["train_loss"] < 6.0


def test_collate_and_pack_hold_the_same_labels():
    batch = draw()
    _, labels = collate(batch)
    assert [label for row in labels.tolist() for label in row if label != IGNORED] == [
        label for label in pack(batch).labels[0].tolist() if label != IGNORED
    ]
