import pytest

from fedpriv.domain import trouble
from fedpriv.domain.trouble import Trouble
from fedpriv.errors import ConfigError, TransportError


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
