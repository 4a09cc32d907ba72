"""The rate in ROUGE is what is read above chance, and is not given where the attack does not work."""

import pytest

from fedpriv.errors import InputError
from fedpriv.leakage import SequenceTrial, sequence_rate

TEXT, OTHER = tuple(range(10)), tuple(range(20, 30))
PERFECT = [SequenceTrial(truth=TEXT, guess=TEXT, other=OTHER)] * 6
NOTHING = [SequenceTrial(truth=TEXT, guess=OTHER, other=OTHER)] * 6


def test_it_is_rouge_minus_what_another_update_gives_as_well():
    assert sequence_rate(PERFECT, control=PERFECT).above_chance.value == 1.0
    half = [SequenceTrial(truth=TEXT, guess=TEXT, other=(*range(5), *OTHER[:5]))] * 6
    assert sequence_rate(half, control=PERFECT).above_chance.value == pytest.approx(0.5)
    assert sequence_rate(NOTHING, control=PERFECT).above_chance.value == 0.0


def test_what_read_nothing_counts_as_nothing():
    silent = [SequenceTrial(truth=TEXT, guess=(), other=())] * 6
    rate = sequence_rate(silent, control=PERFECT)
    assert rate.measured
    assert rate.above_chance.value == 0.0


def test_with_a_control_that_fails_nothing_is_measured():
    always = [SequenceTrial(truth=TEXT, guess=TEXT, other=TEXT)] * 6
    for control in (NOTHING, always):
        rate = sequence_rate(NOTHING, control=control)
        assert not rate.measured
        assert str(rate) == "not measured"


def test_of_few_passages_nothing_is_measured():
    assert not sequence_rate(PERFECT[:4], control=PERFECT).measured
    assert not sequence_rate(PERFECT, control=PERFECT[:4]).measured
    with pytest.raises(InputError, match="trials and a control"):
        sequence_rate([], control=PERFECT)
