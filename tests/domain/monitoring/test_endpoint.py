"""Health and metrics over real HTTP: on the loopback address alone, and without anything private."""

import http.client
import socket
import time

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedpriv.domain import ServiceChoice
from fedpriv.domain.accountant import Mechanism
from fedpriv.domain.domain import Domain
from fedpriv.domain.monitoring import Endpoint, Vitals, serving
from fedpriv.domain.privacy_budget import CHARGED, Charge
from fedpriv.errors import ConfigError, TransportError
from fedpriv.study.messages import LinkSample
from tests.domain.conftest import ADA


def get(port, path, host="127.0.0.1", headers=None):
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def vitals(clock):
    return Vitals(clock=lambda: clock[0])


@pytest.fixture
def watched(domain, vitals):
    """A domain with an endpoint, served as a service serves it."""
    config = domain.config.model_copy(update={"service": ServiceChoice(metrics_port=free_port())})
    again = Domain(folder=domain.folder, config=config, keys=domain.keys)
    with serving(again, vitals) as endpoint:
        yield again, endpoint


def metrics(port):
    status, text = get(port, "/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def charged(ledger, study, spent):
    charge = Charge(
        study=study,
        dataset="mimic-iii",
        round=1,
        start="00" * 8,
        unit="patient",
        mechanism=Mechanism(noise_multiplier=1.0, sampling=0.25, steps=4),
        patients=1237,
        epsilon_study=spent,
        epsilon_dataset=spent,
    )
    ledger.append(CHARGED, once=charge.once, **charge.as_facts())


def test_a_service_is_well_once_it_turned_and_while_it_does(watched, vitals, clock):
    _, endpoint = watched
    assert get(endpoint.port, "/healthz") == (503, "The service is starting and not ready yet.\n")
    vitals.store_answered()
    vitals.ready()
    assert get(endpoint.port, "/healthz") == (200, "The service is well.\n")
    clock[0] += 121
    status, text = get(endpoint.port, "/healthz")
    assert (status, text) == (503, "The service has given no sign of life for 121 s.\n")
    vitals.sign()
    assert get(endpoint.port, "/healthz")[0] == 200
    vitals.stopped()
    assert get(endpoint.port, "/healthz")[0] == 503


def test_work_on_a_ticket_may_take_longer_without_a_sign(watched, vitals, clock):
    _, endpoint = watched
    vitals.ready()
    with vitals.working():
        clock[0] += 600
        assert get(endpoint.port, "/healthz")[0] == 200
        clock[0] += 301
        assert get(endpoint.port, "/healthz")[0] == 503
    assert get(endpoint.port, "/healthz")[0] == 200


@pytest.mark.parametrize(("place", "words"), [("store", "The store has not answered for 30 s"), ("machine", "machine")])
def test_trouble_is_said_in_one_sentence_and_is_over_with_the_next_turn(watched, vitals, clock, place, words):
    _, endpoint = watched
    vitals.store_answered()
    clock[0] += 30
    vitals.met_trouble(place)
    status, text = get(endpoint.port, "/healthz")
    assert status == 503
    assert words in text
    assert text.count("\n") == 1
    vitals.ready()
    assert get(endpoint.port, "/healthz")[0] == 200


def test_a_store_that_answers_again_is_well_although_a_ticket_works(watched, vitals):
    _, endpoint = watched
    vitals.met_trouble("store")
    vitals.store_answered()
    with vitals.working():
        assert get(endpoint.port, "/healthz")[0] == 200


def test_what_happened_is_counted_from_the_ledger_also_after_a_restart(watched, vitals):
    domain, endpoint = watched
    for kind in ("round.trained", "round.trained", "update.sealed", "message.refused", "ticket.refused", "code.tried"):
        domain.ledger.append(kind, study="ab" * 32, reason="<secret reason>")
    found = metrics(endpoint.port)
    assert found[("fedpriv_rounds_total", "trained")] == 2
    assert found[("fedpriv_rounds_total", "sealed")] == 1
    assert found[("fedpriv_refused_total", "message")] == found[("fedpriv_refused_total", "ticket")] == 1
    assert found[("fedpriv_code_attempts_total",)] == 1
    assert found[("fedpriv_ledger_entries",)] == 7
    domain.ledger.append("round.trained")
    assert metrics(endpoint.port)[("fedpriv_rounds_total", "trained")] == 3
    assert metrics(endpoint.port)[("fedpriv_rounds_total", "trained")] == 3  # nothing is counted twice


def test_signs_of_life_and_the_machine_are_measured(watched, vitals, clock):
    _, endpoint = watched
    assert ("fedpriv_store_contact_age_seconds",) not in metrics(endpoint.port)
    vitals.store_answered()
    vitals.ready()
    clock[0] += 7
    vitals.carried_out({"train": 2.5, "seal": 0.5}, LinkSample(up_bytes=100, down_bytes=40))
    vitals.carried_out({"train": 1.0}, None)
    found = metrics(endpoint.port)
    assert found[("fedpriv_store_contact_age_seconds",)] == found[("fedpriv_quiet_seconds",)] == 7
    assert found[("fedpriv_work_seconds_total", "train")] == 3.5
    assert found[("fedpriv_transferred_bytes_total", "up")] == 100
    assert found[("fedpriv_transferred_bytes_total", "down")] == 40
    assert found[("fedpriv_service_state", "waiting")] == 1
    assert sum(value for key, value in found.items() if key[0] == "fedpriv_service_state") == 1
    assert found[("fedpriv_disk_free_bytes",)] > 0
    assert found[("process_resident_memory_bytes",)] > 0


def test_epsilon_is_rounded_and_follows_new_charges(domain, vitals):
    service, policy = ServiceChoice(metrics_port=free_port()), domain.config.policy.model_copy(update={"epsilon": 4.0})
    config = domain.config.model_copy(update={"service": service, "policy": policy})
    again = Domain(folder=domain.folder, config=config, keys=domain.keys)
    with serving(again, vitals) as endpoint:
        assert metrics(endpoint.port)[("fedpriv_epsilon_spent",)] == 0
        charged(again.ledger, "ab" * 32, 1.23456)
        found = metrics(endpoint.port)
        assert found[("fedpriv_epsilon_budget",)] == 4
        assert 0 < found[("fedpriv_epsilon_spent",)] == round(found[("fedpriv_epsilon_spent",)], 2)
        assert found[("fedpriv_study_epsilon_spent", "ab" * 6)] == 1.23
        assert "1237" not in get(endpoint.port, "/metrics")[1]


def test_no_name_key_address_reason_or_count_of_people_is_on_the_page(watched, code_request):
    domain, endpoint = watched
    domain.requests.receive(code_request, ADA)
    domain.ledger.append("dataset.prepared", patients=8731, examples=9317, digest="cd" * 32)
    domain.ledger.append("round.trained", reason="Mrs Jones, aged 93", loss=2.7182, peer=ADA)
    status, text = get(endpoint.port, "/metrics")
    assert status == 200
    assert metrics(endpoint.port)[("fedpriv_waiting_for_person",)] == 1
    for private in (
        *("8731", "9317", "Jones", "2.7182", "cdcdcd", ADA, domain.config.email, domain.config.store),
        *(domain.keys.fingerprint[:8], code_request.plan.title, code_request.study[:8], str(domain.folder.root)),
    ):
        assert private not in text


def test_a_ledger_that_cannot_be_read_is_told_and_the_page_stays(watched):
    domain, endpoint = watched
    with domain.folder.ledger_path.open("ab") as stream:
        stream.write(b"no entry\n")
    assert metrics(endpoint.port)[("fedpriv_ledger_readable",)] == 0


def test_it_listens_on_the_loopback_address_and_no_other(watched):
    _, endpoint = watched
    listening = {
        c.laddr.ip for c in psutil.Process().net_connections() if c.status == "LISTEN" and c.laddr.port == endpoint.port
    }
    assert listening == {"127.0.0.1"}
    addresses = {a.address for found in psutil.net_if_addrs().values() for a in found if a.family == socket.AF_INET}
    others = [*sorted(address for address in addresses if not address.startswith("127.")), "127.0.0.2"]
    for address in others:
        with pytest.raises(ConnectionRefusedError):
            get(endpoint.port, "/metrics", host=address)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "", "[::1]"])
def test_a_web_page_under_another_name_gets_nothing(watched, host):
    _, endpoint = watched
    status, text = get(endpoint.port, "/metrics", headers={"Host": host.format(port=endpoint.port)})
    assert status == 403
    assert "fedpriv_" not in text


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics?a=b", "/../state/keys/identity.json"])
def test_there_is_nothing_else(watched, path):
    assert get(watched[1].port, path)[0] == 404


def test_only_get_is_answered(watched):
    connection = http.client.HTTPConnection("127.0.0.1", watched[1].port, timeout=5)
    connection.request("POST", "/metrics", body=b"x")
    assert connection.getresponse().status == 501
    connection.close()


def test_a_port_that_is_taken_is_a_sentence():
    first = Endpoint(0, complaint=str, metrics=bytes)
    try:
        with pytest.raises(ConfigError, match="service > metrics_port"):
            Endpoint(first.port, complaint=str, metrics=bytes)
    finally:
        first.close()


def test_nothing_listens_unless_it_is_asked_for(domain, vitals):
    assert domain.config.service.metrics_port == 0
    with serving(domain, vitals) as endpoint:
        assert endpoint is None


def test_a_service_without_a_store_says_so(domain, monkeypatch):
    """The service's own threads feed what the page shows."""
    from fedpriv.domain.service import DomainService

    service = DomainService(domain=domain, notify=lambda sentence: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    tries = []

    def connect():
        tries.append(service.vitals.complaint())
        if len(tries) < 3:
            raise TransportError("The store /secret/path cannot be read")

    service._trouble.patiently(connect)
    assert tries == ["The service is starting and not ready yet."] + 2 * [
        "The store has not answered since the start; the service tries again."
    ]
