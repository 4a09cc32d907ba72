"""A service that is told to stop while a library is at work, which makes an error of its own of it."""

import contextlib
import os
import signal
import time

import pytest

from fedpriv.domain.service import DomainService


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("told", [True, False])
def test_a_query_that_is_stopped_ends_the_service_in_order(domain, monkeypatch, told):
    def query(*_):
        with contextlib.suppress(BaseException):  # as DuckDB does with what a signal's handler raises
            if told:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr("fedpriv.domain.service.read_record", query)
    said = []
    service = DomainService(domain=domain, notify=said.append)
    if told:
        service.run()
        assert said == ["stopped"]
    else:
        with pytest.raises(RuntimeError):
            service.run()
    assert domain.status()["state"] == "stopped"
