"""The first figure on the tiny model: what each method's updates give away, and to whom."""

import pytest

from fedpriv.experiments.comparison.bed import Bed
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.leakage import EPSILON, IN_ORDER, LEAKAGE, ROUND, LeakageCase, measure_leakage
from fedpriv.experiments.comparison.made import source_digest
from fedpriv.experiments.comparison.record import Records, Settings
from fedpriv.experiments.comparison.simulated import run_simulated
from fedpriv.experiments.comparison.summary import INSIDE, OPENED, OUTSIDE

BOTH = [(method, holder) for method in ("he-fl", "fedpriv", "fedpriv-hybrid", "secagg") for holder in (OUTSIDE, INSIDE)]
CASES = [
    LeakageCase(method="centralised", holder=OUTSIDE),
    LeakageCase(method="local-only", holder=OUTSIDE),
    LeakageCase(method="fl", holder=OUTSIDE),
    LeakageCase(method="fl", holder=OUTSIDE, work="one step, 4 notes"),
    LeakageCase(method="dp-fl", holder=OUTSIDE, epsilon=EPSILON),
    *(LeakageCase(method=method, holder=holder) for method, holder in BOTH),
    *(LeakageCase(method="fedpriv", holder=OPENED, work=ROUND, members=size) for size in (3, 8, 64)),
    LeakageCase(method="dp-fl", holder=OPENED, work=ROUND, epsilon=EPSILON),
    *(LeakageCase(method=method, holder=OUTSIDE, work="local round, 1 note") for method in ("fl", "fedpriv")),
    *(LeakageCase(method=method, holder=OUTSIDE, work=IN_ORDER) for method in ("fl", "fedpriv")),
]

PASSAGES = 6
"""Of each case: one more than an interval needs."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bed") / "work"
    with Bed(folder, mimic=None, model="tiny", rounds=2, steps=4, max_tokens=64) as bed:
        yield bed
    assert not folder.exists(), "notes and plain updates are gone"


@pytest.fixture(scope="module")
def measured(bed, tmp_path_factory):
    settings = Settings(model="tiny", model_digest="-", tables="synthetic", rounds=2, steps=4, max_tokens=64)
    records = Records(tmp_path_factory.mktemp("leakage"), settings)
    found = measure_leakage(bed, records, CASES, passages=PASSAGES)
    return records, by_case(found)


def by_case(found):
    return {
        (case.method, case.holder, case.work, *([case.members] if case.members != 3 else [])): leak
        for leak in found
        for case in [leak.case]
    }


def test_the_positive_control_reads_plain_updates(measured):
    _, found = measured
    assert found["fl", OUTSIDE, "one step, 1 note"].trials == PASSAGES
    assert found["fl", OUTSIDE, "one step, 1 note"].named >= 0.95
    assert found["fl", OUTSIDE, "one step, 4 notes"].named >= 0.95
    assert found["fl", OUTSIDE, "one step, 1 note"].rate.low > 0.2


def test_plain_updates_are_read_word_for_word_and_sealed_ones_are_not(measured):
    _, found = measured
    plain, own = (found[method, OUTSIDE, IN_ORDER] for method in ("fl", "fedpriv"))
    assert plain.named >= 0.9
    assert plain.rate.low > 0.1
    assert own.control == plain.control
    assert own.rate.low <= 0.0
    assert own.rate.value < 0.2


def test_whoever_gets_the_notes_reads_most_and_who_gets_nothing_guesses(measured):
    _, found = measured
    top = found["centralised", OUTSIDE, "one step, 1 note"].rate.value
    assert top >= found["fl", OUTSIDE, "one step, 1 note"].rate.value
    assert found["local-only", OUTSIDE, "one step, 1 note"].rate.value == 0.0


@pytest.mark.parametrize("method", ["fedpriv", "fedpriv-hybrid", "secagg"])
@pytest.mark.parametrize("holder", [OUTSIDE, INSIDE])
def test_protected_updates_are_at_chance_for_everybody(measured, method, holder):
    _, found = measured
    rate = found[method, holder, "one step, 1 note"].rate
    assert rate.low <= 0.0 <= rate.high


def test_the_opened_sum_of_three_gives_tokens_away_whatever_protected_the_updates(measured):
    _, found = measured
    opened, single = (found["fedpriv", holder, ROUND].named for holder in (OPENED, OUTSIDE))
    assert opened > single + 0.1


def test_more_domains_blur_the_sum_and_noise_hides_it(measured):
    _, found = measured
    three, eight = found["fedpriv", OPENED, ROUND], found["fedpriv", OPENED, ROUND, 8]
    noisy = found["dp-fl", OPENED, ROUND]
    assert eight.trials == noisy.trials == PASSAGES
    assert eight.named < three.named
    assert noisy.named < three.named
    assert eight.case.name.endswith("-of-8")


def test_a_record_says_by_what_it_was_made(measured):
    _, found = measured
    (source,) = {leak.made.source for leak in found.values()}
    assert source == source_digest()


def test_a_sum_of_more_domains_than_there_are_updates_is_not_measured(measured):
    _, found = measured
    most = found["fedpriv", OPENED, ROUND, 64]
    assert (most.rate, most.trials) == (None, 0)


def test_rounds_of_adamw_are_judged_by_a_control_of_their_own(measured):
    _, found = measured
    plain, own = (found[method, OUTSIDE, "local round, 1 note"] for method in ("fl", "fedpriv"))
    assert plain.control == own.control
    assert plain.control != found["fl", OUTSIDE, "one step, 1 note"].control
    assert plain.rate is None or plain.rate.low > 0.0 >= own.rate.low


def test_he_fl_hides_updates_from_the_aggregator_and_not_from_a_domain(measured):
    _, found = measured
    assert found["he-fl", OUTSIDE, "one step, 1 note"].rate.low <= 0.0
    assert found["he-fl", INSIDE, "one step, 1 note"].rate.low > 0.2


def test_noise_keeps_back_most(measured):
    _, found = measured
    noisy, plain = (found[method, OUTSIDE, "one step, 1 note"] for method in ("dp-fl", "fl"))
    assert noisy.rate.value < plain.rate.value / 2


def test_a_case_of_a_sweep_runs_in_one_process_with_real_protection(bed, tmp_path):
    case = Case(part="alpha", method="fedpriv", seed=0, alpha=1.0)
    found = run_simulated(case, bed, tmp_path)
    assert (found.how, found.rounds, found.parameters) == ("one process", 2, 4096)
    assert found.quality.loss < found.quality.loss_before
    assert found.cost.training_cpu_s > 0
    assert set(found.weights) == set(bed.shards())
    assert sum(found.weights.values()) == pytest.approx(1.0)
    assert found.link_s > 0


def test_what_is_there_is_not_measured_again(measured, tmp_path):
    records, found = measured
    with Bed(tmp_path / "work", mimic=None, model="tiny", rounds=2, steps=4, max_tokens=64) as bed:
        again = measure_leakage(bed, records, CASES)
        assert not (bed.folder / "synthetic").exists(), "nothing was even prepared"
    assert by_case(again) == found
    assert len(list((records.folder / LEAKAGE).iterdir())) == len(CASES)
