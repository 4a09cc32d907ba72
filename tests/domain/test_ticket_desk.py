"""What a ticket needs and may still come is waited for; what does not come ends as a refusal, once."""

from types import SimpleNamespace

import pytest
from syft_job.models import JobStatus

from fedpriv.domain import missing
from fedpriv.errors import MissingBlobError, UnknownVersionError, VersionError
from fedpriv.protection import sign
from tests.domain.conftest import ADA
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
