"""A service that is told to stop while a library is at work, which makes an error of its own of it."""

import contextlib
import os
import signal
import time

import duckdb
import pytest
from syft_job.models import JobStatus

from fedpriv.domain.service import DomainService
from fedpriv.domain.stopping import Stop, Stopping
from fedpriv.errors import ConfigError
from fedpriv.protection import sign
from tests.domain.conftest import ADA
from tests.domain.test_other_researchers import eve, service, ticket, two

__all__ = ["eve", "service", "two"]  # fixtures


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
                time.sleep(0.5)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_twice_ends_in_order(domain, monkeypatch, number):
    def tell(*_):
        os.kill(os.getpid(), number)
        time.sleep(0.1)

    monkeypatch.setattr("fedpriv.domain.service.read_record", tell)
    said = []
    service = DomainService(domain=domain, notify=lambda what: (said.append(what), tell()))
    monkeypatch.setattr(service._tickets, "close", tell)
    service.run()
    assert said == ["stopped"]
    assert domain.status()["state"] == "stopped"


def query(*_):
    """Stop this process in the midst of a query: DuckDB makes an error of its own of what the handler raises."""

    def stop() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        return 1

    with duckdb.connect() as connection:
        connection.create_function("stop", stop)
        connection.execute("SELECT stop()").fetchall()


def query_as_ours(*_):
    try:
        query()
    except duckdb.Error as error:
        raise ConfigError("The tables cannot be read") from error


@pytest.mark.parametrize("work", [query, query_as_ours])
def test_a_ticket_in_whose_query_the_service_is_stopped_is_carried_out_after_the_restart(
    service, code_request, ada, work
):
    service.letters.add(ADA, "request-1", code_request.files)
    service.service._handle_jobs()
    train = ticket(code_request, kind="train", round=1)
    service.letters.add(ADA, train.name, {"ticket.json": sign(ada, "ticket", train).to_bytes()})
    service.service._stopping.listen(None)
    carry_out = service.work.carry_out
    service.work.carry_out = work
    with pytest.raises(Stop):
        service.service._handle_jobs()
    assert (ADA, train.name) not in service.letters.answers
    service.work.carry_out = carry_out
    service.service._stopping = service.service._tickets.stopping = Stopping()  # of the next process
    service.service._handle_jobs()
    assert service.letters.answers[ADA, train.name][0] is JobStatus.DONE


def test_a_request_in_whose_reading_the_service_is_stopped_is_not_refused(service, code_request, monkeypatch):
    service.letters.add(ADA, "request-1", code_request.files)
    service.service._stopping.listen(None)
    monkeypatch.setattr(service.service._requests, "receive", lambda *_, **__: query())
    with pytest.raises(Stop):
        service.service._handle_jobs()
    assert (ADA, "request-1") not in service.letters.answers
