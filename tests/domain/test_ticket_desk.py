"""What a ticket needs and may still come is waited for; what does not come ends as a refusal, once."""

from types import SimpleNamespace

import pytest
from syft_job.models import JobStatus

from fedpriv.domain import missing, ticket_desk, waiting
from fedpriv.errors import MissingBlobError, UnknownVersionError, VersionError
from fedpriv.protection import sign
from tests.domain.conftest import ADA, approved
from tests.domain.test_other_researchers import eve, service, ticket, two

__all__ = ["eve", "service", "two"]  # fixtures


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(missing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def asked(service, code_request, ada):
    """Ada's request is in, and a ticket of it."""
    service.letters.add(ADA, "request-1", code_request.files)
    service.service._handle_jobs()
    train = ticket(code_request, kind="train", round=1)
    service.letters.add(ADA, train.name, {"ticket.json": sign(ada, "ticket", train).to_bytes()})
    return SimpleNamespace(name=train.name, **vars(service))


def refuse_with(asked, error):
    def require(*_, **__):
        if error:
            raise error

    asked.service._tickets.versions = SimpleNamespace(require=require)


@pytest.mark.parametrize("error", [UnknownVersionError("sicu says nothing"), MissingBlobError("no key yet")])
def test_a_ticket_waits_for_what_may_still_come_and_is_then_carried_out(asked, clock, error):
    refuse_with(asked, error)
    asked.service._handle_jobs()
    assert (ADA, asked.name) not in asked.letters.answers
    refuse_with(asked, None)
    asked.service._handle_jobs()
    assert asked.done == [], "it was looked at a moment ago"
    clock.now += 6
    asked.service._handle_jobs()
    assert asked.done == [("train", 1)]
    assert asked.letters.answers[ADA, asked.name][0] is JobStatus.DONE


def test_what_does_not_come_in_two_minutes_is_an_answer(asked, clock, two):
    refuse_with(asked, UnknownVersionError("sicu says nothing"))
    for _ in range(30):
        asked.service._handle_jobs()
        clock.now += 6
    assert asked.letters.answers[ADA, asked.name][0] is JobStatus.REJECTED
    assert [entry.kind for entry in two.ledger.entries()].count("ticket.refused") == 1


def test_who_runs_another_version_is_refused_at_once(asked, clock):
    refuse_with(asked, VersionError("sicu runs container 3"))
    asked.service._handle_jobs()
    assert asked.letters.answers[ADA, asked.name][0] is JobStatus.REJECTED


def test_the_approved_hours_that_a_ticket_waits_for_are_the_only_wait(asked, two, code_request, monkeypatch):
    def told():
        return [(wait["who"], wait["what"]) for wait in two.status()["waiting"]]

    def clock(seconds):
        for module in (ticket_desk, waiting):
            monkeypatch.setattr(module, "opens_in", lambda limits: seconds)

    study = code_request.study
    two.record_decision(approved(code_request, two.config.email, hours="22:00-06:00"))
    clock(60.0)
    assert told() == [("the researcher", f"send the first ticket of study {study[:12]}")]
    asked.service._handle_jobs()
    begins = [("the approved hours", f"begin (22:00-06:00), for train of round 1 of study {study[:12]}")]
    assert told() == begins
    since = two.status()["waiting"][0]["since_s"]
    asked.service._handle_jobs()
    assert two.status()["waiting"][0]["since_s"] == since
    assert asked.done == []
    clock(0.0)
    asked.service._handle_jobs()
    assert asked.done == [("train", 1)]
    assert "send the next ticket" in told()[0][1]
    clock(60.0)
    assert "send the next ticket" in told()[0][1], "nothing waits for the hours any more"
