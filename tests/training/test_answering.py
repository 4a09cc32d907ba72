"""Answers of a model to questions, read in one pass or several, against each example computed alone and anew."""

import dataclasses

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, build
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.study.plan import LoraChoice
from fedpriv.training import evaluate
from fedpriv.training.answering import loss_and_answers, yes_probabilities
from fedpriv.training.evaluate import LEAST, MOST, MOST_WORK, heldout_examples
from fedpriv.training.examples import Example
from fedpriv.training.model import adapter_parameters, base_of, batch_loss, load_model
from fedpriv.training.traits import traits_of

YES, NO = 17, 23
QUESTIONS = ((3, 4), (5,), (6, 7, 8))


def asked(texts, questions=QUESTIONS, seed=0):
    """Examples of texts of these lengths, asked the same questions, with answers drawn."""
    draw = np.random.Generator(np.random.Philox(seed))
    examples = []
    for length in texts:
        ids, answers = draw.integers(30, 500, length).tolist(), []
        for question in questions:
            ids += [*question, YES if draw.random() < 0.5 else NO]
            answers.append(len(ids) - 1)
        examples.append(Example(tuple(ids), tuple(answers)))
    return examples


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


def alone(model, example):
    """The probability of yes at each question, each from the whole text and the model's own answers so far."""
    ids, told = list(example.ids), []
    for position in example.answers:
        with torch.no_grad():
            pair = model(input_ids=torch.tensor([ids[:position]])).logits[0, -1, [YES, NO]]
        told.append(float(torch.softmax(pair.double(), 0)[0]))
        ids[position] = YES if told[-1] > 0.5 else NO
    return told


@pytest.mark.parametrize("packable", [True, False])
def test_texts_read_together_are_answered_as_alone(model, packable, monkeypatch):
    known = traits_of(base_of(model))
    if packable and not known.packable:
        pytest.skip("the model looks at a whole row by itself")
    monkeypatch.setitem(base_of(model).__dict__, "_fedpriv_traits", dataclasses.replace(known, packable=packable))
    examples = asked([11, 2, 30, 7, 7, 1, 16, 9, 4, 25])
    told = yes_probabilities(model, examples, (YES, NO))
    expected = np.array([alone(model, example) for example in examples])
    assert np.ptp(expected) > 1e-3
    assert told == pytest.approx(expected, abs=1e-5)


def test_one_pass_gives_the_loss_and_the_first_answers(model):
    examples = asked([11, 2, 30, 7], seed=1)
    loss, told = loss_and_answers(model, examples, (YES, NO))
    with torch.no_grad(), batch_loss(model, examples) as expected:
        assert loss == pytest.approx(float(expected), rel=1e-5)
    assert told.shape == (4, 3)
    assert told[:, 0] == pytest.approx([alone(model, example)[0] for example in examples], abs=1e-5)


def test_a_model_that_cannot_be_packed_gives_the_same(model, monkeypatch):
    examples = asked([11, 2, 30, 7], seed=2)
    together = loss_and_answers(model, examples, (YES, NO))
    traits = traits_of(base_of(model))
    monkeypatch.setitem(
        base_of(model).__dict__, "_fedpriv_traits", type(traits)(packable=False, plain_head=traits.plain_head)
    )
    padded = loss_and_answers(model, examples, (YES, NO))
    assert padded[0] == pytest.approx(together[0], rel=1e-5)
    assert padded[1] == pytest.approx(together[1], abs=1e-5)


class Source(list[Example]):
    """Examples that count how many of them were read."""

    read_so_far = 0

    def read(self, indices):
        self.read_so_far += len(indices)
        return [self[index] for index in indices]


@given(
    lengths=st.lists(st.integers(0, 400), max_size=MOST + 90),
    parameters=st.sampled_from([1, 10**6, 10**8, 10**9]),
    questions=st.integers(0, 2),
)
def test_the_examples_looked_at_are_the_first_ones_within_the_work(lengths, parameters, questions):
    source = Source(Example((1,) * n, tuple(range(n - questions, n)) if n > questions else ()) for n in lengths)
    passes = 2 if questions == 2 else 1

    def work(some):
        return sum(len(example) * (passes if example.answers else 1) for example in some) * parameters

    found = heldout_examples(source, parameters)
    assert [len(example) for example in found] == sorted(len(example) for example in found)
    assert min(map(len, found), default=2) >= 2
    usable = [len(example) >= 2 for example in source]
    count = len(found)
    lines = next((n for n in range(len(source) + 1) if sum(usable[:n]) == count), 0)
    assert sorted(map(id, found)) == sorted(id(e) for e in source[:lines] if len(e) >= 2)
    assert count >= sum(usable[:LEAST])
    if not any(example.answers for example in source[:LEAST]):
        assert count == sum(usable[:LEAST]) and source.read_so_far <= LEAST
    elif count < sum(usable[:MOST]):
        after = next(n for n in range(lines, len(source)) if usable[n])
        assert work(source[: after + 1]) > MOST_WORK
    if count > sum(usable[:LEAST]):
        assert work(source[:lines]) <= MOST_WORK
    assert len(heldout_examples(source, 10**12, 5)) == sum(usable[:5])


def test_one_question_needs_one_pass_and_several_need_their_own(context, monkeypatch):
    calls = []
    real = evaluate.yes_probabilities
    monkeypatch.setattr(evaluate, "yes_probabilities", lambda *args: calls.append(1) or real(*args))
    model = load_model(context.model_folder, context.lora)
    for questions, passes in ((QUESTIONS[:1], 0), (QUESTIONS, 1)):
        loss, metrics = evaluate._asked(model, asked([12, 9, 20] * 6, questions), (YES, NO))
        assert len(calls) == passes
        assert set(metrics) == {"heldout_micro_f1", "heldout_macro_f1", "heldout_auroc", "heldout_auroc_se"}
        with torch.no_grad(), batch_loss(model, asked([12, 9, 20] * 6, questions)) as expected:
            assert loss == pytest.approx(float(expected), rel=1e-5)
