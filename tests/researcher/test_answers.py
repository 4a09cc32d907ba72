import pytest

from fedpriv.researcher.answers import mean_train_loss
from fedpriv.study import Result


def result(**metrics):
    return Result(
        study="0" * 64,
        ticket_sha256="1" * 64,
        kind="train",
        round=1,
        member="micu@x.org",
        status="done",
        metrics=metrics,
    )


def test_the_training_loss_is_weighted_by_tokens():
    results = [result(train_loss=1.0, train_tokens=300.0), result(train_loss=2.0, train_tokens=100.0)]
    assert mean_train_loss(results) == pytest.approx(1.25)
    assert mean_train_loss([result(train_loss=1.0), result(train_loss=2.0)]) == pytest.approx(1.5)


def test_who_gives_no_training_loss_counts_for_none():
    assert mean_train_loss([result(train_loss=1.5), result(examples=3.0)]) == 1.5
    assert mean_train_loss([result(examples=3.0)]) is None
