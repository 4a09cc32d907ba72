import os
import time

import pytest

from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.domain.domain import Domain
from fedpriv.errors import LockError, RefusedError
from fedpriv.files import write_json
from fedpriv.widgets.owner_actions import OwnerDesk as Desk
from fedpriv.widgets.owner_actions import Serve, StopService
from fedpriv.widgets.owner_reading import OwnerReader
from fedpriv.widgets.owner_state import Opened
from fedpriv.widgets.service_process import last_error, start_service, stop_service


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def desk(domain):
    return Desk(domain.folder.root)


@pytest.fixture
def look(domain, desk):
    """Look at the service as the panel does."""
    reader = OwnerReader(root=domain.folder.root)
    return lambda: reader.look(Opened(), starting=desk.is_starting_service, gauge=False).service


def test_a_service_is_started_seen_and_stopped(domain, tmp_path, desk, look):
    write_synthetic(tmp_path / "tables", patients=8, seed=1)
    (tmp_path / "store").mkdir()
    assert "The service starts" in desk.carry_out(Serve(do="serve"))
    assert look().starting
    wait_for(lambda: look().doing == "waiting for requests")
    service = look()
    assert (service.running, service.starting, service.problem) == (True, False, "")
    with pytest.raises(LockError):
        start_service(domain)
    assert "ends as soon as it can" in desk.carry_out(StopService(do="stop"))
    wait_for(lambda: not desk.is_starting_service)
    service = look()
    assert (service.running, service.doing, service.problem) == (False, "stopped", "")
    assert (domain.folder.state / "serve.log").stat().st_mode & 0o777 == 0o600


def test_a_service_that_cannot_serve_says_why_where_it_was_started(domain, desk, look):
    desk.carry_out(Serve(do="serve"))
    wait_for(lambda: not desk.is_starting_service)
    service = look()
    assert not service.running
    assert str(domain.config.data.source) in service.problem
    assert "Next: " in service.problem
    write_json(domain.folder.status_path, {"state": "waiting for tickets", "since_s": 2.0, "pid": 1})
    assert look().problem == "", "a later service, started at a terminal, has nothing to do with it"


def test_nothing_is_stopped_by_a_lock_that_nobody_holds(domain):
    with pytest.raises(RefusedError, match="does not run"):
        stop_service(domain)
    domain.folder.lock_path.write_text(f"{os.getpid()}\n")  # a dead service's lock, with the number of a living process
    with pytest.raises(RefusedError, match="does not run"):
        stop_service(Domain.open(domain.folder.root))


def test_no_log_is_no_error(domain):
    assert last_error(domain.folder) == ""
