"""The rate is what its definition says, and nothing is reported where the attack itself fails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage import Rehearsal, Trial, gradient_of, leakage_rate, read_tokens, recover_tokens
from fedpriv.study.protection_choice import ProtectionChoice
from tests.leakage.conftest import COMMON, LORA, view_of

TOKENS = st.lists(st.integers(0, 30), min_size=40, max_size=40)
NOTHING = tuple(range(100, 140))
PERFECT = [Trial(secret=frozenset(range(9)), guesses=tuple(range(9)), others=NOTHING)] * 6


@given(st.frozensets(st.integers(0, 30), min_size=1), TOKENS, TOKENS, st.frozensets(st.integers(0, 30)))
def test_one_trial_is_the_share_named_minus_that_of_the_other_update(secret, guesses, others, common):
    trial = Trial(secret=secret, guesses=guesses, others=others)
    telling = [token for token in secret if token not in common]
    if not telling:
        assert trial.above_chance(common) is None
        return
    hits = sum(token in guesses[: len(secret)] for token in telling)
    by_chance = sum(token in others[: len(secret)] for token in telling)
    assert trial.above_chance(common) == pytest.approx((hits - by_chance) / len(telling))


def test_what_is_named_too_late_does_not_count():
    trial = Trial(secret=frozenset({1, 2}), guesses=(7, 1, 2), others=NOTHING)
    assert trial.above_chance(()) == 0.5


def test_a_perfect_attack_has_rate_one_and_a_blind_one_zero():
    blind = [Trial(secret=frozenset(range(9)), guesses=NOTHING, others=NOTHING)] * 6
    assert leakage_rate(PERFECT, control=PERFECT, common=()).above_chance.value == 1.0
    rate = leakage_rate(blind, control=PERFECT, common=())
    assert rate.measured
    assert rate.above_chance.value == 0.0
    assert str(rate) == "0.00 [0.00, 0.00]"


@pytest.mark.parametrize("hits", [0, 5, 7])
def test_with_a_control_that_fails_nothing_is_measured(hits):
    weak = [Trial(secret=frozenset(range(9)), guesses=(*range(hits), *NOTHING), others=NOTHING)] * 6
    rate = leakage_rate(PERFECT, control=weak, common=())
    assert rate.above_chance is None
    assert not rate.measured
    assert str(rate) == "not measured"


def test_a_control_that_names_as_much_without_the_update_fails():
    """A dictionary that names everything anyway, by frequency for example, shows nothing."""
    always = [Trial(secret=frozenset(range(9)), guesses=tuple(range(9)), others=tuple(range(9)))] * 6
    assert not leakage_rate(PERFECT, control=always, common=()).measured


def test_of_few_texts_nothing_is_measured():
    assert not leakage_rate(PERFECT[:4], control=PERFECT, common=()).measured
    assert not leakage_rate(PERFECT, control=PERFECT[:4], common=()).measured


def test_texts_of_common_tokens_only_are_refused():
    with pytest.raises(InputError, match="not common"):
        leakage_rate(PERFECT, control=PERFECT, common=range(9))


PASSAGES = 8


def cohort_trials(attacked, tmp_path, level, look):
    """One trial a passage: three members' gradients, protected; the first one's is attacked, through ``look``."""
    trials = []
    for seed in range(PASSAGES):
        (tmp_path / str(seed)).mkdir()
        batches = [attacked.passages(1, seed=10 * seed + member) for member in range(4)]
        gradients = [gradient_of(attacked.folder, LORA, attacked.adapter, batch) for batch in batches]
        clip = max(float(np.abs(value).max()) for gradient in gradients for value in gradient.values())
        cohort = Rehearsal(ProtectionChoice(level=level), attacked.layout, tmp_path / str(seed), clip=clip)
        secret = read_tokens(batches[0])
        own, other = (
            recover_tokens(look(cohort, cohort.publish([first, *gradients[1:3]])), attacked.dictionary, len(secret))
            for first in (gradients[0], gradients[3])
        )
        trials.append(Trial(secret=secret, guesses=own, others=other))
    return trials


def of_the_first(cohort, published):
    return cohort.aggregator_view(published[0])


@pytest.fixture(scope="module")
def control(attacked):
    trials = []
    for seed in range(PASSAGES):
        batch, other = (attacked.passages(1, seed=10 * seed + part) for part in (0, 3))
        secret = read_tokens(batch)
        guesses = [
            recover_tokens(
                view_of(gradient_of(attacked.folder, LORA, attacked.adapter, some)), attacked.dictionary, len(secret)
            )
            for some in (batch, other)
        ]
        trials.append(Trial(secret=secret, guesses=guesses[0], others=guesses[1]))
    return trials


def one_domain(cohort, published):
    return cohort.domain_view(published[0], colluding=[1], unlocked=cohort.unlock(published))


@pytest.mark.parametrize(
    ("level", "look"),
    [
        *((level, of_the_first) for level in ("sealed", "masked", "ckks-tuned")),
        ("sealed", one_domain),
        ("masked", one_domain),
    ],
)
def test_from_a_protected_update_nothing_is_recovered(attacked, tmp_path, control, level, look):
    trials = cohort_trials(attacked, tmp_path, level, look)
    rate = leakage_rate(trials, control=control, common=attacked.dictionary.common(COMMON))
    assert rate.control.value > 0.95
    assert abs(rate.above_chance.value) < 0.2  # some 50 telling tokens, each named by chance once in 20


def test_from_a_plain_update_it_is_and_so_it_is_when_all_others_collude(attacked, tmp_path, control):
    common = attacked.dictionary.common(COMMON)
    (tmp_path / "plain").mkdir()
    plain = leakage_rate(
        cohort_trials(attacked, tmp_path / "plain", "plain", of_the_first), control=control, common=common
    )
    assert plain.above_chance.low > 0.5

    def all_others(cohort, published):
        return cohort.sum_view(published, colluding=[1, 2])

    (tmp_path / "collude").mkdir()
    left = leakage_rate(
        cohort_trials(attacked, tmp_path / "collude", "sealed", all_others), control=control, common=common
    )
    assert left.above_chance.value > 0.8


def test_in_he_fl_one_domain_with_the_stores_bytes_recovers_it(attacked, tmp_path, control):
    trials = cohort_trials(attacked, tmp_path, "ckks", one_domain)
    rate = leakage_rate(trials, control=control, common=attacked.dictionary.common(COMMON))
    assert rate.above_chance.low > 0.5
