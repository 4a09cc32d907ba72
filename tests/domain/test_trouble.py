import sqlite3
from types import SimpleNamespace

import pytest

from fedpriv.domain import trouble
from fedpriv.domain.service import DomainService
from fedpriv.domain.stopping import Stop
from fedpriv.domain.trouble import Trouble
from fedpriv.errors import ConfigError, TransportError, UnreachableError


@pytest.fixture
def noted():
    return []


@pytest.fixture
def met(noted):
    return Trouble(say=noted.append, notify=noted.append)


def test_pauses_grow_to_half_a_minute_and_start_again(met):
    pauses = [met.met(TransportError("away")) for _ in range(9)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert met.over()
    assert not met.over()
    assert met.met(TransportError("away")) == 0.5


def test_a_full_disk_here_is_not_taken_for_the_store(met, noted):
    met.met(OSError(28, "No space left on device"))
    assert noted[0] == "trouble with this machine: [Errno 28] No space left on device"
    met.met(TransportError("The store is away", todo="wait"))
    assert noted[2] == "trouble with the store: The store is away. Next: wait."
    assert noted[3] == "The store is away. Next: wait. Trying again in 1.0 s."


def test_the_start_waits_for_the_store_and_for_nothing_else(met, monkeypatch):
    monkeypatch.setattr(trouble.time, "sleep", lambda seconds: None)
    outcomes = [TransportError("away"), TransportError("away"), 7]

    def step():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert met.patiently(step) == 7

    def wrong():
        raise ConfigError("no such key")

    with pytest.raises(ConfigError):
        met.patiently(wrong)


@pytest.fixture
def running(domain, noted, monkeypatch):
    """A service whose start is over, in place of whose session a given one is."""
    monkeypatch.setattr("fedpriv.domain.service.time.sleep", lambda seconds: None)
    service = DomainService(domain=domain, notify=noted.append)
    service._start = lambda: None
    service._researchers = {member.email: member for member in domain.config.researchers}
    service._requests.publish_decisions = lambda session: False

    def run(**given):
        nothing = dict.fromkeys(("receive", "publish"), lambda: None)
        service._session = SimpleNamespace(**nothing | {"news": lambda: (1,), "jobs": list} | given)
        service._serve(once=False)
        return service

    run.service = service
    return run


def raises(*errors):
    left = list(errors)

    def do(*_):
        raise left.pop(0)

    return do


def test_a_store_that_goes_away_while_news_are_awaited_ends_no_service(running, noted):
    running(wait=raises(UnreachableError("The folder is gone"), TransportError("The store refused to list"), Stop()))
    assert noted[0] == "ready: waiting for requests"
    assert ["Trying again in" in told for told in noted[1:]] == [True, True, False]
    assert noted[-1] == "stopped"


def test_nothing_that_others_sent_ends_a_service(running, noted):
    service = running(receive=raises(KeyError("secret"), sqlite3.OperationalError("database is locked"), Stop()))
    assert noted[1].startswith("It could not be handled (KeyError in service.py:")
    assert "secret" not in noted[1]
    assert noted[2] == "database is locked. Trying again in 1.0 s."
    assert noted[3:] == ["stopped"]
    assert service.vitals.phase == "stopped"


def test_a_service_that_is_told_to_stop_takes_no_error_for_what_others_sent(running, noted):
    def receive():
        running.service._stopping._asked.set()
        raise RuntimeError("Query interrupted")

    service = running(receive=receive)
    assert noted == ["ready: waiting for requests", "stopped"]
    with pytest.raises(Stop):
        service._on_refusal("eve@x.org", "broken off")
