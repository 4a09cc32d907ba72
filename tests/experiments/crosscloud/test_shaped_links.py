import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.experiments.crosscloud.links import Link, Shaper

sizes = st.lists(st.integers(min_value=20, max_value=1500), min_size=1, max_size=300)


@given(sizes, st.floats(min_value=0.1, max_value=1000), st.floats(min_value=0, max_value=500))
def test_packets_arrive_in_order_no_faster_than_the_rate_and_none_is_lost_below_the_queue(packets, rate, delay):
    shaper = Shaper(Link(rate_mbps=rate, delay_ms=delay))
    arrivals = [shaper.arrival_s(size, 0.0) for size in packets]
    sent = [(at, size) for at, size in zip(arrivals, packets, strict=True) if at is not None]
    assert [at for at, _ in sent] == sorted(at for at, _ in sent)
    total = sum(size for _, size in sent)
    assert sent[-1][0] == pytest.approx(total * 8 / (rate * 1e6) + delay / 1e3)
    assert total <= shaper.link.queue_bytes + 1
    assert (shaper.bytes, shaper.packets, shaper.dropped) == (total, len(sent), len(packets) - len(sent))


@given(sizes)
def test_a_link_without_a_rate_only_delays(packets):
    shaper = Shaper(Link(delay_ms=7))
    assert [shaper.arrival_s(size, 3.0) for size in packets] == [pytest.approx(3.007)] * len(packets)


def test_the_queue_drains_and_takes_packets_again():
    shaper = Shaper(Link(rate_mbps=2))
    taken = [shaper.arrival_s(1500, 0.0) for _ in range(100)]
    assert sum(at is not None for at in taken) == 64
    assert shaper.arrival_s(1500, 1.0) == pytest.approx(1.006)


@pytest.mark.parametrize("loss", [0.0, 0.5, 1.0])
def test_the_loss_is_the_part_that_is_lost(loss):
    shaper = Shaper(Link(loss=loss), seed=3)
    lost = sum(shaper.arrival_s(100, 0.0) is None for _ in range(4000))
    assert lost / 4000 == pytest.approx(loss, abs=0.03)


def test_links_in_words():
    assert Link(rate_mbps=2, delay_ms=150, loss=0.5).shown == "2 Mbit/s, 150 ms, 50% lost"
    assert Link().shown == "unlimited, 0 ms"
