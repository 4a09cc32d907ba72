"""Losses of single notes are those that training sums up, whatever notes they are computed beside."""

import numpy as np
import pytest

from fedpriv.errors import InputError, TrainingError
from fedpriv.leakage import losses as module
from fedpriv.leakage.losses import gain, losses
from fedpriv.training.examples import Example
from tests.leakage.conftest import BY_HEART


def of(released, adapter, texts):
    return losses(released.folder, BY_HEART, adapter, released.encoded(texts))


def test_they_are_the_losses_of_training(released):
    import torch

    from fedpriv.training.model import batch_loss, load_model, put_adapter

    found = of(released, released.adapter, released.members)
    model = load_model(released.folder, BY_HEART)
    put_adapter(model, released.adapter)
    for note, summed, tokens in zip(released.encoded(released.members), found.summed, found.tokens, strict=True):
        assert tokens == len(note) - 1
        with torch.no_grad(), batch_loss(model, [note]) as loss:
            assert summed == pytest.approx(float(loss), rel=1e-4)


def test_neither_order_nor_company_matters(released, monkeypatch):
    texts = [text[: 40 + 30 * number] for number, text in enumerate(released.others[:9])]
    together = of(released, released.adapter, texts)
    monkeypatch.setattr(module, "POSITIONS_AT_ONCE", 1)
    alone = of(released, released.adapter, texts[::-1])
    np.testing.assert_allclose(together.mean, alone.mean[::-1], rtol=1e-4)


def test_of_answers_only_those_count(released):
    note = released.encoded(released.members)[0]
    found = losses(released.folder, BY_HEART, released.adapter, [Example(note.ids, (5, 9)), note])
    assert found.tokens.tolist() == [2, len(note) - 1]
    assert found.summed[0] < found.summed[1]


def test_the_starting_adapter_changes_nothing(released):
    """All of its second factors are zero."""
    np.testing.assert_allclose(gain(released.folder, BY_HEART, released.start, released.encoded(released.others)), 0)


def test_the_reference_is_the_mean_of_those_given(released):
    notes = released.encoded(released.others[:5])
    own, other = (
        gain(released.folder, BY_HEART, released.adapter, notes, [adapter])
        for adapter in (released.adapter, released.start)
    )
    both = gain(released.folder, BY_HEART, released.adapter, notes, [released.adapter, released.start])
    np.testing.assert_allclose(own, 0, atol=1e-9)
    np.testing.assert_allclose(both, other / 2)
    np.testing.assert_allclose(other, gain(released.folder, BY_HEART, released.adapter, notes))
    alone = gain(released.folder, BY_HEART, released.adapter, notes, None)
    np.testing.assert_allclose(alone, -losses(released.folder, BY_HEART, released.adapter, notes).summed)


def test_what_cannot_be_measured_is_refused(released):
    with pytest.raises(InputError, match="no token"):
        losses(released.folder, BY_HEART, None, [Example((3,))])
    broken = {name: np.full_like(value, np.nan) for name, value in released.adapter.items()}
    with pytest.raises(InputError, match="not finite"):
        of(released, broken, released.members[:1])
    with pytest.raises(TrainingError, match="does not fit"):
        of(released, dict(list(released.adapter.items())[:-1]), released.members[:1])
