import json
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.aggregation import Link
from fedpriv.aggregation.links import balanced_steps
from fedpriv.errors import UntrustedError
from fedpriv.researcher.answers import mean_loss, mean_train_loss, metric, quality, require_possible
from fedpriv.study import Result
from fedpriv.study.messages import LinkSample
from fedpriv.study.plan import MetricName


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


@pytest.mark.parametrize(
    "odd",
    [
        {"heldout_loss": 1e308},
        {"train_loss": -1.0},
        {"heldout_tokens": 1e308},
        {"examples": 2.5},
        {"heldout_auroc": -1e308},
        {"heldout_macro_f1": 1.5},
    ],
    ids=str,
)
def test_a_number_that_cannot_be_is_refused_by_its_name(odd):
    with pytest.raises(UntrustedError, match=f"micu@x.org answered with a {next(iter(odd))} that cannot be"):
        require_possible(result(**odd))


@pytest.mark.parametrize(
    "more",
    [
        *({"seconds": {"train": value}} for value in (1e300, 5e-324, 1e-9, -1.0, math.nan)),
        {"seconds": {f"part{number}": 1.0 for number in range(100)}},
        {"link": LinkSample(up_s=1e300)},
        {"link": LinkSample(up_bytes=2**60)},
        {"link": LinkSample(down_bytes=2**53, down_s=5e-324)},
        {"link": LinkSample(up_bytes=1, up_s=1.0, small_put_s=1e-12)},
    ],
)
def test_so_is_what_a_domain_says_of_its_time_and_its_link(more):
    with pytest.raises(UntrustedError, match="that cannot be"):
        require_possible(result(heldout_loss=1.0).model_copy(update=more))
    require_possible(result(heldout_loss=1.0, heldout_tokens=10.0, heldout_auroc=1.0))


TIMES = st.floats(min_value=0.0, allow_nan=False, allow_infinity=False)
LINKS = st.builds(
    LinkSample,
    up_bytes=st.integers(0, 2**60),
    down_bytes=st.integers(0, 2**60),
    up_s=TIMES,
    down_s=TIMES,
    small_put_s=TIMES,
)


@given(LINKS, LINKS, TIMES)
def test_what_is_made_of_times_that_can_be_is_finite(first, second, train_s):
    link = Link()
    for sample in (first, second):
        made = result().model_copy(update={"link": sample, "seconds": {"train": train_s}})
        try:
            require_possible(made)
        except UntrustedError:
            continue
        link = link.observe(sample)
        json.dumps(link.model_dump(), allow_nan=False)
        if train_s:
            step_s = {"a": train_s / 100_000, "b": 1.0}
            taken = balanced_steps(step_s, {"a": link.seconds(10**9, 10**9, 9), "b": 0.0}, steps=100_000)
            assert all(1 <= steps <= 100_000 for steps in taken.values())


METRICS = st.dictionaries(st.sampled_from(get_args(MetricName)), st.floats(allow_nan=False, allow_infinity=False))


@given(st.lists(METRICS, min_size=1, max_size=4))
def test_what_is_made_of_answers_that_can_be_is_finite(many):
    results = {}
    for number, metrics in enumerate(many):
        made = result(**metrics)
        try:
            require_possible(made)
            metric(made, "heldout_loss"), metric(made, "heldout_tokens")
        except UntrustedError:
            continue
        results[str(number)] = made
    if results:
        assert math.isfinite(mean_loss(results))
    json.dumps([quality(results), mean_train_loss(results.values())], allow_nan=False)
