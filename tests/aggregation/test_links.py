import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.aggregation import Link, affordable_bits, balanced_steps, relative_bandwidths
from fedpriv.aggregation.links import SMOOTHING
from fedpriv.study.messages import LinkSample

MB = 1_000_000


def sample(mbps, latency, size=MB):
    return LinkSample(up_bytes=size, up_s=size * 8e-6 / mbps + latency, small_put_s=latency)


@given(st.floats(0.1, 1000), st.floats(0, 1))
def test_one_transfer_gives_the_rate_without_the_latency(mbps, latency):
    link = Link().observe(sample(mbps, latency))
    wire = MB * 8e-6 / mbps
    expected = mbps if wire >= 0.1 * (wire + latency) else MB * 8e-6 / (0.1 * (wire + latency))
    assert link.up_mbps == pytest.approx(expected, rel=1e-6)
    assert link.down_mbps is None
    assert link.latency_s == (pytest.approx(latency) if latency else None)


def test_estimates_are_smoothed_in_the_logarithm():
    link = Link().observe(sample(10, 0.1)).observe(sample(100, 0.3))
    assert link.up_mbps == pytest.approx(10 ** (1 + SMOOTHING), rel=1e-6)
    assert link.latency_s == pytest.approx(0.1 + SMOOTHING * 0.2)
    for _ in range(40):
        link = link.observe(sample(2, 0.15))
    assert link.up_mbps == pytest.approx(2, rel=1e-3)


def test_a_few_bytes_tell_nothing_of_a_rate():
    link = Link().observe(sample(10, 0.1))
    assert link.observe(sample(10, 0.1, size=100)).up_mbps == link.up_mbps
    assert Link().observe(LinkSample()) == Link()


@given(st.dictionaries(st.text("abc", min_size=1), st.none() | st.floats(1e-3, 1e5), min_size=1, max_size=20))
def test_bandwidths_are_relative_to_the_median_of_those_that_are_known(rates):
    relative = relative_bandwidths({member: Link(up_mbps=rate) for member, rate in rates.items()})
    assert set(relative) == set(rates)
    assert all(1 / 1024 <= value <= 1024 for value in relative.values())
    assert all(relative[member] == 1 for member, rate in rates.items() if rate is None)
    known = sorted(rate for rate in rates.values() if rate)
    if known:
        middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
        for member, rate in rates.items():
            if rate and 1 / 1024 < rate / middle < 1024:
                assert relative[member] == pytest.approx(rate / middle)


@given(
    st.dictionaries(st.text("abc", min_size=1), st.tuples(st.floats(0.01, 100), st.floats(0, 1000)), min_size=1),
    st.integers(1, 1000),
)
def test_with_balanced_steps_nobody_is_later_than_with_all_steps(domains, steps):
    step_s = {member: pair[0] for member, pair in domains.items()}
    transfer_s = {member: pair[1] for member, pair in domains.items()}
    given_steps = balanced_steps(step_s, transfer_s, steps=steps)
    ready = sorted(step_s[m] * steps + transfer_s[m] for m in domains)
    first = max(ready[0], ready[len(ready) // 2] / 8)
    assert steps in given_steps.values()
    for member, number in given_steps.items():
        assert 1 <= number <= steps
        if number > 1:
            assert step_s[member] * number + transfer_s[member] <= first * (1 + 1e-6) + 1e-6 * step_s[member]
        if number < steps:  # one more would be later
            assert step_s[member] * (number + 1) + transfer_s[member] > first * (1 - 1e-6)


@given(st.floats(1e-9, 1e3), st.integers(8, 500), st.integers(1, 5))
def test_one_domain_that_claims_any_speed_does_not_take_the_steps_of_the_others(claimed, steps, others):
    honest = {f"d{number}": 1.0 for number in range(others)}
    found = balanced_steps(honest | {"liar": claimed}, dict.fromkeys([*honest, "liar"], 0.0), steps=steps)
    assert min(found[member] for member in honest) >= steps // 8


def test_bits_are_as_many_as_the_slowest_link_moves_while_all_train():
    sizes = {4: MB, 8: 2 * MB, 10: 3 * MB}
    links = [Link(up_mbps=100, down_mbps=100), Link(up_mbps=8, down_mbps=8)]  # 8 Mbit/s: 2 s for each MB, up and down
    assert [affordable_bits(sizes, links, train_s) for train_s in (1, 3, 4, 5.9, 6, 60)] == [4, 4, 8, 8, 10, 10]
    assert affordable_bits(sizes, [Link()], 0.0) == 10


def test_a_transfer_takes_its_bytes_and_its_messages():
    link = Link(up_mbps=2, down_mbps=20, latency_s=0.15)
    assert link.seconds(MB, MB, messages=4) == pytest.approx(4 + 0.4 + 0.6)
    assert math.isclose(Link().seconds(MB, MB, messages=4), 0)
