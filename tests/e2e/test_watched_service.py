"""A service that is watched: its log and its metrics through a whole study of the tiny model."""

import http.client
import json
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedpriv.domain import Domain, ServiceChoice
from fedpriv.files import read_json
from tests.e2e.conftest import count, prepare, received, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def values_in(value):
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from values_in(inner)
    else:
        yield value


def private_words(root, shard):
    """What no log and no page may hold: three words of a note in a row, a key, a loss that was measured."""
    state = root / shard / "state"
    found = set()
    for path in state.glob("data/**/*.jsonl"):
        for line in path.read_text().splitlines():
            words = " ".join(v for v in values_in(json.loads(line)) if isinstance(v, str)).split()
            found |= {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}
    assert len(found) > 1000
    for name in ("identity.json", "transport.json"):
        found |= {v for v in values_in(read_json(state / "keys" / name)) if isinstance(v, str) and len(v) > 20}
    losses = set()
    for path in state.glob("studies/*/results/*.json"):
        losses |= {str(value) for value in read_json(path)["payload"].get("metrics", {}).values()}
    losses = {loss for loss in losses if len(loss) > 5}
    assert losses
    return found | losses


def test_the_log_and_the_metrics_of_a_study_hold_nothing_private(federation, start):
    root, shards, serve = federation(rounds=1, steps=2)
    watched, *others = shards
    domain = Domain.open(root / watched)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    domain.folder.write_config(domain.config.model_copy(update={"service": ServiceChoice(metrics_port=port)}))
    service = start("domain", "serve", root / watched, "--log-format", "json", cwd=root)
    for shard in others:
        serve(shard)
    run("study", "submit", "icu", cwd=root)
    running = start("study", "run", "icu", cwd=root)
    for shard in shards:
        study = received(root, shard)["study"]
        prepare("domain", "approve", root / shard, study[:10], cwd=root)
    assert running.wait(300) == 0
    wait_for(lambda: get(port, "/healthz")[0] == 200, seconds=30, what="a well service")
    _, page = get(port, "/metrics")
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    found = {(s.name, *s.labels.values()): s.value for s in samples}
    for step in ("trained", "sealed", "confirmed", "opened"):
        assert found[("fedpriv_rounds_total", step)] == 1, step
    assert found[("fedpriv_transferred_bytes_total", "up")] > 1000
    assert found[("fedpriv_work_seconds_total", "train")] > 0
    assert found[("fedpriv_store_contact_age_seconds",)] < 60
    assert found[("fedpriv_waiting_for_person",)] == 0
    service.terminate()
    assert service.wait(30) == 0

    text = (root / "process-0.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "service.started"
    assert events[-1] == "service.stopped"
    assert {"service.ready", "request.received", "ticket.started", "round.trained", "update.sealed"} < set(events)
    assert all(line["domain"] == domain.config.email for line in lines)
    assert {line["study"] for line in lines if "study" in line} == {study[:12]}
    trained = next(line for line in lines if line["event"] == "round.trained")
    assert trained["round"] == 1
    done = [line for line in lines if line["event"] == "ticket.done" and line["ticket"] == "train"]
    assert done[0]["seconds"] > 0
    assert done[0]["up_bytes"] > 1000
    assert count(root / watched, "round.trained") == 1

    for word in private_words(root, watched):
        assert word not in text, word
        assert word not in page, word
