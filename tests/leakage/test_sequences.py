"""Sequence recovery reads a passage back where it must, and cannot where there is nothing of it."""

from dataclasses import replace

import numpy as np
import pytest

from fedpriv.errors import InputError
from fedpriv.leakage import (
    SequenceTrial,
    View,
    gradient_of,
    read_tokens,
    recover_sequences,
    recover_tokens,
    rouge_l,
    sequence_rate,
    sequence_reader,
)
from tests.leakage.conftest import LORA, noise, view_of

LENGTH = 12
SEEDS = range(5)


@pytest.fixture(scope="module")
def reader(attacked):
    return sequence_reader(attacked.folder, LORA, attacked.adapter, attacked.public)


def passage(attacked, seed):
    return attacked.passages(1, seed=seed, length=LENGTH + 1)


def gradient(attacked, seed):
    return gradient_of(attacked.folder, LORA, attacked.adapter, passage(attacked, seed))


def truth(attacked, seed):
    return passage(attacked, seed)[0].ids[:-1]


def read(attacked, reader, view):
    bag = recover_tokens(view, attacked.dictionary, LENGTH)
    return recover_sequences(view, reader, length=LENGTH, candidates=bag)[0]


def without_first_block(view):
    left = {name: value for name, value in view.tensors.items() if ".layers.0." not in name}
    return View(party=view.party, levels=view.levels, tensors=left)


@pytest.fixture(scope="module")
def control(attacked, reader):
    guesses = [
        read(attacked, reader, view_of(gradient(attacked, seed))) for seed in [*SEEDS, *(s + 100 for s in SEEDS)]
    ]
    return [
        SequenceTrial(truth=truth(attacked, seed), guess=guesses[seed], other=guesses[seed + len(SEEDS)])
        for seed in SEEDS
    ]


def test_positive_control_a_gradient_gives_the_passage_away_in_order(control):
    scores = [rouge_l(trial.guess, trial.truth) for trial in control]
    assert np.mean(scores) > 0.95
    assert sum(trial.guess == trial.truth for trial in control) >= 4


def test_hiding_the_first_block_does_not_hide_the_passage(attacked, reader):
    scores = []
    for seed in SEEDS[:3]:
        view = without_first_block(view_of(gradient(attacked, seed)))
        scores.append(rouge_l(recover_sequences(view, reader, length=LENGTH)[0], truth(attacked, seed)))
    assert np.mean(scores) > 0.9


def test_negative_control_an_update_of_another_passage_does_not_give_this_one_away(control):
    assert np.mean([rouge_l(trial.other, trial.truth) for trial in control]) < 0.5


def test_negative_control_a_random_update_gives_nothing_away(attacked, reader, control):
    trials = [
        replace(trial, guess=read(attacked, reader, view_of(noise(attacked.layout, seed))))
        for seed, trial in zip(SEEDS, control, strict=True)
    ]
    rate = sequence_rate(trials, control=control)
    assert rate.above_chance is not None
    assert abs(rate.above_chance.value) < 0.25
    assert np.mean([rouge_l(trial.guess, trial.truth) for trial in trials]) < 0.4


def test_of_a_batch_of_two_the_tokens_of_both_come_back(attacked, reader):
    """The order within and between them only in part; see docs/leakage.md."""
    batch = attacked.passages(2, seed=3, length=LENGTH + 1)
    view = view_of(gradient_of(attacked.folder, LORA, attacked.adapter, batch))
    bag = recover_tokens(view, attacked.dictionary, len(read_tokens(batch)))
    found = recover_sequences(view, reader, length=LENGTH, passages=2, candidates=bag)
    assert len(found) == 2
    assert [len(text) for text in found] == [LENGTH, LENGTH]
    named = {token for text in found for token in text}
    assert len(named & read_tokens(batch)) / len(read_tokens(batch)) > 0.6


def test_who_sees_nothing_reads_nothing(attacked, reader):
    empty = View(party="nobody", levels={}, tensors={})
    zeros = {name: np.zeros(shape, np.float32) for name, shape in attacked.layout.items()}
    for view in (empty, view_of(zeros)):
        assert recover_sequences(view, reader, length=LENGTH) == []


def test_an_update_that_is_not_finite_is_refused(attacked, reader):
    update = noise(attacked.layout, 1)
    update[reader.layers.inputs.groups[1][0]][0, 0] = np.inf
    with pytest.raises(InputError, match="not finite"):
        recover_sequences(view_of(update), reader, length=LENGTH)


def test_public_text_must_be_long_enough_to_look_at(attacked):
    short = [replace(example, ids=example.ids[:16]) for example in attacked.public]
    with pytest.raises(InputError, match="more than 16"):
        sequence_reader(attacked.folder, LORA, attacked.adapter, short)
