"""Whatever a pinned researcher sends as a job, the service goes on with other researchers', after a restart too."""

import errno
import sqlite3

import pytest
from syft_job.models import JobStatus

from fedpriv.domain import refusals
from fedpriv.domain import service as services
from fedpriv.errors import RefusedError
from fedpriv.protection import sign
from fedpriv.unforeseen import is_of_the_machine
from tests.domain.conftest import ADA
from tests.domain.test_other_researchers import EVE, eve, service, ticket, two

__all__ = ["eve", "service", "two"]  # fixtures

RECIPE = "def train(context):\n    pass\n"


def handled(service):
    service.service._handle_jobs()
    return service.letters.answers


@pytest.mark.parametrize("value", ["!!bool x", "!!int ''", "!!timestamp x", "&a [*a]"])
def test_yaml_that_ends_in_odd_errors_is_refused_and_others_are_served(service, code_request, value):
    service.letters.add(EVE, "aaa", {"plan.yaml": f"a: {value}\n", "train.py": RECIPE})
    service.letters.add(ADA, "request-1", code_request.files)
    answers = handled(service)
    assert answers[EVE, "aaa"][0] is JobStatus.REJECTED
    assert "not allowed" in answers[EVE, "aaa"][1]
    assert service.service._requests.knows(service.letters.jobs()[1])


def test_a_folder_in_a_ticket_s_place_is_refused_and_others_are_served(service, code_request):
    service.letters.add(EVE, "aaa", {})
    (service.letters.root / EVE / "aaa" / "ticket.json").mkdir()
    service.letters.add(ADA, "request-1", code_request.files)
    answers = handled(service)
    assert answers[EVE, "aaa"][0] is JobStatus.REJECTED
    assert "IsADirectoryError in ticket_desk.py:" in answers[EVE, "aaa"][1]
    assert service.service._requests.knows(service.letters.jobs()[1])


@pytest.mark.parametrize("kind", ["replay", "train", "seal", "confirm", "skip", "finish", "consent", "release"])
def test_a_ticket_of_no_round_is_refused(service, code_request, ada, kind):
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)
    asked = ticket(code_request, kind=kind, round=0)
    service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    status, reason = handled(service)[ADA, asked.name]
    assert status is JobStatus.REJECTED
    assert "names no round" in reason
    assert service.done == []


def test_an_error_of_ours_fails_one_ticket_and_tells_its_place_alone(service, code_request, ada):
    """Signed, as every failure: the researcher may ask again under the next number."""
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)

    def fails(ticket, digest):
        raise KeyError("a word of a note")

    service.work.carry_out = fails
    for number in (1, 2):
        asked = ticket(code_request, kind="train", round=number)
        service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    answers = [answer for (_, name), answer in handled(service).items() if name.startswith("ticket-")]
    assert [status for status, _ in answers] == [JobStatus.FAILED] * 2
    assert all("KeyError in ticket_desk.py:" in reason and "note" not in reason for _, reason in answers)


@pytest.mark.parametrize(("number", "ours"), [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ENOENT, False)])
def test_a_full_disk_is_no_reason_to_refuse_a_job(number, ours):
    assert is_of_the_machine(OSError(number, "x")) is ours


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "x"), FileNotFoundError("x"), MemoryError("x"), sqlite3.OperationalError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_the_machine_lacks_for_a_ticket_is_waited_for_and_then_it_is_done(service, code_request, ada, error):
    """An answer would stand: whoever sent the ticket could only send the same again."""
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)
    whole = service.work.carry_out

    def fails(ticket, digest):
        raise error

    service.work.carry_out = fails
    asked = ticket(code_request, kind="train", round=1)
    service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    with pytest.raises(OSError, match="x"):  # which the loop tells, waits for, and tries again
        handled(service)
    assert (ADA, asked.name) not in service.letters.answers
    service.work.carry_out = whole
    assert handled(service)[ADA, asked.name][0] is JobStatus.DONE


def test_a_ticket_of_a_researcher_whose_keys_are_not_here_waits(service, code_request, ada):
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)
    del service.service._researchers[ADA]
    asked = ticket(code_request, kind="train", round=1)
    service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    service.letters.add(ADA, "zzz", {"plan.yaml": "a: [\n"})
    assert (ADA, asked.name) not in handled(service)
    assert any("keys of ada@y.org" in said for said in service.said)
    service.service._researchers[ADA] = ada.identity
    assert handled(service)[ADA, asked.name][0] is JobStatus.DONE


def test_many_bad_jobs_let_answers_out_first_and_do_not_fill_the_ledger(service, two, monkeypatch):
    monkeypatch.setattr(services, "_MOST_REFUSED", 8)
    monkeypatch.setattr(refusals, "NOTED", 10)
    for number in range(20):
        service.letters.add(EVE, f"bad-{number:02d}", {"plan.yaml": "a: [\n"})
    assert len(handled(service)) == 8
    handled(service)
    assert len(handled(service)) == 20
    noted = [entry.facts["count"] for entry in two.ledger.entries() if entry.kind == "job.refused"]
    assert noted == [*range(1, 11), 16]


def test_many_bad_jobs_hide_no_ticket_that_is_refused(service, two, code_request, ada, monkeypatch):
    monkeypatch.setattr(refusals, "NOTED", 2)
    service.letters.add(ADA, "request-1", code_request.files)
    for number in range(5):
        service.letters.add(ADA, f"bad-{number}", {"plan.yaml": "a: [\n"})
    handled(service)

    def refuse(ticket, digest):
        raise RefusedError("not now")

    service.work.carry_out = refuse
    asked = ticket(code_request, kind="train", round=1)
    service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    handled(service)
    assert [entry.kind for entry in two.ledger.entries()].count("ticket.refused") == 1


def test_what_was_refused_is_not_told_again_after_a_restart(service, two):
    service.letters.add(EVE, "bad", {"plan.yaml": "a: [\n"})
    handled(service)
    before = len(two.ledger.entries())
    service.service._settled.clear()
    handled(service)
    assert len(two.ledger.entries()) == before
    assert service.service._settled == {(EVE, "bad")}


def test_words_of_others_neither_move_a_terminal_s_cursor_nor_begin_a_line(service, two):
    plan = '"\\e[2J\\e]0;pwn\\a\\n12:00:00 micu: request 0123 approved": 1\n'
    service.letters.add(EVE, "aaa", {"plan.yaml": plan, "train.py": RECIPE})
    handled(service)
    (said,) = service.said
    assert said.isprintable()
    assert "<U+001B>" in said
    (entry,) = [entry for entry in two.ledger.entries() if entry.kind == "job.refused"]
    assert entry.facts["reason"].isprintable()


@pytest.mark.parametrize("kind", ["prepare", "rekey", "ping"])
def test_tickets_before_the_first_round_need_none(service, code_request, ada, kind):
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)
    asked = ticket(code_request, kind=kind, round=0)
    service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    assert handled(service)[ADA, asked.name][0] is JobStatus.DONE
    assert service.done == [(kind, 0)]


def test_tickets_that_wait_without_end_keep_no_other_researcher_waiting(service, code_request, ada, eve, monkeypatch):
    monkeypatch.setattr(services, "_MOST_WAITING", 3)
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)
    looked = []

    def is_undecided(ticket):
        looked.append(ticket.retry)
        return True

    service.work.releasing.is_undecided = is_undecided
    for retry in range(10):
        asked = ticket(code_request, kind="consent", round=1, retry=retry)
        service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    service.letters.add(EVE, "zzz", {"plan.yaml": "a: [\n"})
    assert handled(service)[EVE, "zzz"][0] is JobStatus.REJECTED
    assert looked == [0, 1, 2]


def test_tickets_that_are_refused_do_not_fill_the_ledger(service, code_request, ada, two, monkeypatch):
    monkeypatch.setattr(refusals, "NOTED", 5)
    service.letters.add(ADA, "request-1", code_request.files)
    handled(service)

    def refuses(ticket, digest):
        raise RefusedError("no such round")

    service.work.carry_out = refuses
    for number in range(1, 11):
        asked = ticket(code_request, kind="train", round=number)
        service.letters.add(ADA, asked.name, {"ticket.json": sign(ada, "ticket", asked).to_bytes()})
    answers = handled(service)
    assert sum(status is JobStatus.REJECTED for status, _ in answers.values()) == 10, "each is answered"
    noted = [entry.facts for entry in two.ledger.entries() if entry.kind == "ticket.refused"]
    assert [facts["count"] for facts in noted] == [1, 2, 3, 4, 5, 8]
    assert noted[0]["reason"] == "no such round"
