"""Which tensors a round trains and sends."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.study import parse_plan
from fedpriv.study.averaging import IN_WORDS, ServerChoice, alike, is_live, trained_tensors, turns_of
from tests.study.study_plans import SMALL

NAMES = tuple(f"m.layers.{n}.{half}.weight" for n in range(3) for half in ("lora_A", "lora_B"))
A = tuple(name for name in NAMES if "lora_A" in name)
B = tuple(name for name in NAMES if "lora_B" in name)


def plan(**sections):
    return parse_plan(yaml.safe_dump({**SMALL, **sections}))


@pytest.mark.parametrize(("averaging", "odd", "even"), [("both", NAMES, NAMES), ("b_only", B, B), ("alternate", B, A)])
@given(number=st.integers(1, 1000))
def test_what_a_round_trains(averaging, odd, even, number):
    assert set(trained_tensors(averaging, NAMES, number)) == set(odd if number % 2 else even)


@given(st.sampled_from(sorted(IN_WORDS)), st.integers(1, 1000), st.integers(1, 1000))
def test_two_rounds_are_alike_if_they_train_the_same_and_share_nothing_if_not(averaging, first, second):
    ours, theirs = (set(trained_tensors(averaging, NAMES, number)) for number in (first, second))
    assert (ours == theirs) == alike(averaging, first, second)
    assert ours == theirs or not ours & theirs


@given(st.sampled_from(sorted(IN_WORDS)), st.integers(1, 999))
def test_two_rounds_in_a_row_train_all_that_is_ever_trained(averaging, number):
    turns = turns_of(averaging, NAMES)
    seen = trained_tensors(averaging, NAMES, number) + trained_tensors(averaging, NAMES, number + 1)
    assert set(seen) == set(turns)
    assert all(is_live(turn, number) or is_live(turn, number + 1) for turn in turns.values())


def test_private_plans_by_patient_send_lora_b_alone_and_others_both():
    assert plan().averaging == "both"
    assert plan(privacy={"epsilon": 8.0}).averaging == "b_only"
    assert plan(privacy={"epsilon": 8.0}, aggregation={"averaging": "b_only"}).averaging == "b_only"
    assert plan(privacy={"epsilon": 8.0, "unit": "domain"}).averaging == "both"
    assert plan(privacy={"epsilon": 8.0, "unit": "domain"}, aggregation={"averaging": "alternate"}).averaging == (
        "alternate"
    )


def test_the_rate_of_the_server_optimiser_unless_the_plan_gives_one():
    training = {"steps": 5, "learning_rate": 2e-3}
    adam, momentum = (
        plan(training=training, aggregation={"server": {"optimizer": name}}) for name in ("adam", "momentum")
    )
    assert (adam.server_rate, momentum.server_rate) == (pytest.approx(0.01), 1.0)
    assert plan(aggregation={"server": {"optimizer": "adam", "learning_rate": 0.5}}).server_rate == 0.5


def test_a_server_optimiser_is_said_in_words_and_none_is_not():
    assert ServerChoice().in_words() == ""
    assert "FedAdam" in ServerChoice(optimizer="adam").in_words()
