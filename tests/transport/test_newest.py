import threading

import pytest

from fedpriv.errors import TransportError
from fedpriv.transport.newest import Newest


def test_the_newest_is_sent_and_nobody_waits():
    free, sent = threading.Event(), []

    def send(value):
        assert free.wait(10)
        sent.append(value)

    news = Newest(send)
    for value in range(100):
        news.put(value)
    assert not news.wait(0.05)
    free.set()
    assert news.wait(10)
    assert sent[-1] == 99
    assert news.seconds > 0
    assert len(sent) <= 2


@pytest.mark.parametrize("error", [TransportError("away"), OSError(28, "full"), KeyError("unforeseen")])
def test_what_fails_does_not_end_it(error):
    sent = []

    def send(value):
        if value == "first":
            raise error
        sent.append(value)

    news = Newest(send)
    for value in ("first", "second"):
        news.put(value)
        assert news.wait(10)
        assert (news.seconds > 0) == (value == "second")
    assert sent == ["second"]
