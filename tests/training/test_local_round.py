import dataclasses
import itertools
import math

import pytest
import torch

from fedpriv.errors import TrainingError
from fedpriv.study.averaging import trained_tensors
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import adapter_digest, evaluate_local, train_local
from fedpriv.training.examples import IGNORED, Example, collate, encode, example_order, read_texts
from fedpriv.training.local_round import pull_back
from fedpriv.training.model import load_model, next_token_loss, put_adapter, train_only


def test_same_context_gives_the_same_bits(context):
    first, second = train_local(context), train_local(context)
    assert adapter_digest(first.adapter_after) == adapter_digest(second.adapter_after)
    assert first.metrics == second.metrics
    other = train_local(dataclasses.replace(context, seed=8))
    assert adapter_digest(other.adapter_after) != adapter_digest(first.adapter_after)


def test_three_rounds_of_four_steps_lower_the_heldout_loss(context):
    before = evaluate_local(context)
    for number in (1, 2, 3):
        outcome = train_local(dataclasses.replace(context, round=number))
        context = dataclasses.replace(context, adapter=outcome.adapter_after)
    after = evaluate_local(context)
    assert after["heldout_loss"] < before["heldout_loss"] - 0.3
    assert before["heldout_examples"] == 32 and before["heldout_tokens"] == after["heldout_tokens"]


def test_metrics_progress_and_untouched_input(context):
    before = adapter_digest(context.adapter)
    steps = []
    outcome = train_local(dataclasses.replace(context, report=lambda step, total: steps.append((step, total))))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(outcome.metrics) == {"train_loss", "train_tokens", "examples"}
    assert outcome.metrics["examples"] == 40
    assert adapter_digest(context.adapter) == before


def test_time_limit_keeps_the_work_so_far(context, monkeypatch):
    clock = itertools.count(step=10)
    monkeypatch.setattr("fedpriv.training.local_round.time.monotonic", lambda: next(clock))
    steps = []
    training = TrainingChoice(steps=50, max_seconds=25)
    outcome = train_local(dataclasses.replace(context, training=training, report=lambda step, _: steps.append(step)))
    assert steps == [1, 2, 3]
    assert adapter_digest(outcome.adapter_after) != adapter_digest(context.adapter)


def test_order_goes_on_across_rounds_without_repeats():
    whole = list(itertools.islice(example_order(10, 3, 0), 40))
    parts = [list(itertools.islice(example_order(10, 3, start), 8)) for start in range(0, 40, 8)]
    assert whole == list(itertools.chain(*parts))
    for start in range(0, 40, 10):
        assert sorted(whole[start : start + 10]) == list(range(10))
    assert whole[:10] != whole[10:20]


def test_loss_and_gradient_are_those_of_transformers(context):
    model = load_model(context.model_folder, context.lora)
    put_adapter(model, {name: array + 0.02 for name, array in context.adapter.items()})
    examples = encode(context.model_folder, read_texts(context.train, limit=3), max_tokens=64)
    examples[1] = Example(examples[1][:20])
    tokens, labels = collate(examples)
    trained = [p for p in model.parameters() if p.requires_grad]
    ours = next_token_loss(model, tokens, labels)
    our_gradients = torch.autograd.grad(ours, trained)
    mask = torch.tensor([[int(i < len(ids)) for i in range(tokens.shape[1])] for ids in examples])
    logits = model(input_ids=tokens, attention_mask=mask).logits
    theirs = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    for mine, other in zip(our_gradients, torch.autograd.grad(theirs, trained), strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-3)


def test_only_lora_parameters_are_trained(context):
    model = load_model(context.model_folder, LoraChoice())
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)


def test_adapter_of_another_rank_does_not_fit(context):
    with pytest.raises(TrainingError, match="does not fit"):
        train_local(dataclasses.replace(context, lora=LoraChoice(rank=4)))


def test_empty_and_broken_shards_are_told_without_their_text(context, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n\n')
    with pytest.raises(TrainingError, match="no example"):
        train_local(dataclasses.replace(context, train=empty))
    with pytest.raises(TrainingError, match="no held-out example"):
        evaluate_local(dataclasses.replace(context, heldout=empty))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine words"}\n{"secret"\n')
    with pytest.raises(TrainingError, match="Line 2") as caught:
        train_local(dataclasses.replace(context, train=broken))
    assert "secret" not in str(caught.value)


def test_loss_of_a_uniform_guess_is_near_the_log_of_the_vocabulary(context):
    assert evaluate_local(context)["heldout_loss"] == pytest.approx(math.log(512), abs=1)


@pytest.mark.parametrize(("averaging", "number"), [("b_only", 2), ("alternate", 1), ("alternate", 2)])
def test_only_the_trained_parameters_move(context, averaging, number):
    adapter = train_local(context).adapter_after  # lora_B is zero at first, and no gradient reaches lora_A then
    trained = trained_tensors(averaging, adapter, number)
    assert len(trained) == len(adapter) // 2
    after = train_local(dataclasses.replace(context, adapter=adapter, trained=trained, round=number)).adapter_after
    moved = {name for name in adapter if after[name].tobytes() != adapter[name].tobytes()}
    assert moved == set(trained)


def test_what_was_frozen_before_can_be_trained_again(context):
    whole = train_local(context)
    train_local(dataclasses.replace(context, trained=context.trained[:1]))
    assert adapter_digest(train_local(context).adapter_after) == adapter_digest(whole.adapter_after)


@pytest.mark.parametrize("names", [(), ("base_model.model.lm_head.lora_A.weight",)])
def test_nothing_and_strangers_cannot_be_trained(context, names):
    with pytest.raises(TrainingError, match="not those of the adapter"):
        train_local(dataclasses.replace(context, trained=names))


def test_the_pull_to_the_start_is_the_gradient_of_the_squared_distance(context):
    model = load_model(context.model_folder, context.lora)
    put_adapter(model, context.adapter)
    trained = list(train_only(model, context.trained).values())
    start = [parameter.detach().clone() for parameter in trained]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    tokens, labels = collate(encode(context.model_folder, read_texts(context.train, limit=2), max_tokens=32))
    loss = next_token_loss(model, tokens, labels)
    distance = torch.stack([(p - origin).square().sum() for p, origin in zip(trained, start, strict=True)]).sum()
    expected = torch.autograd.grad(loss + 0.7 / 2 * distance, trained)
    next_token_loss(model, tokens, labels).backward()
    pull_back(trained, start, 0.7)
    for parameter, gradient in zip(trained, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_a_strong_pull_keeps_a_round_near_its_start_and_none_changes_nothing(context):
    def distance(proximal):
        training = context.training.model_copy(update={"proximal": proximal, "steps": 8})
        after = train_local(dataclasses.replace(context, training=training)).adapter_after
        return math.sqrt(sum(float(((after[n] - context.adapter[n]) ** 2).sum()) for n in after))

    far, near, nearest = (distance(proximal) for proximal in (0.0, 20.0, 1000.0))
    assert far > 1.3 * near > 1.3 * nearest > 0


def products(adapter):
    return {
        name: adapter[name].astype(float) @ adapter[name.replace("lora_B", "lora_A")].astype(float)
        for name in adapter
        if "lora_B" in name
    }


@pytest.mark.parametrize("averaging", ["both", "b_only", "alternate"])
def test_the_mean_of_products_is_the_product_of_means_where_one_factor_is_shared(context, averaging):
    """FFA-LoRA and RoLoRA are exact, up to the rounding of float32; FedIT is not, by orders of magnitude more."""
    start = train_local(dataclasses.replace(context, seed=3)).adapter_after
    worst = 0.0
    for number in (1, 2):
        trained = trained_tensors(averaging, start, number)
        local = dataclasses.replace(context, adapter=start, trained=trained, round=number)
        after = [train_local(dataclasses.replace(local, seed=seed)).adapter_after for seed in (1, 2, 3)]
        mean = {name: sum(a[name].astype(float) for a in after) / 3 for name in start}
        for name, of_means in products(mean).items():
            of_products = sum(products(a)[name] for a in after) / 3
            moved = abs(of_products - products(start)[name]).max()
            worst = max(worst, abs(of_means - of_products).max() / moved)
    assert (worst > 1e-3) if averaging == "both" else (worst < 1e-12)
