"""A request is decided as far as the policy does, and its researcher hears of every decision once."""

import pytest
from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.domain import request_desk
from fedpriv.domain.request_desk import RequestDesk
from fedpriv.errors import FedprivError, RefusedError
from fedpriv.protection import open_signed
from fedpriv.study import RequestDecision, Signed
from tests.domain.conftest import ADA


class Letters:
    """What a session is asked to send."""

    def __init__(self, *jobs):
        self.sent, self._jobs = [], jobs

    def jobs(self):
        return self._jobs

    def answer(self, job, status, files, *, reason):
        self.sent.append((job.job_name, status, files["decision.json"], reason))


@pytest.fixture
def job(domain):
    return JobRef(domain.config.email, ADA, "request-1", "1")


@pytest.fixture
def code(code_request, tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in code_request.files.items():
        (folder / name).write_text(text)
    return folder


def kinds(domain):
    return [entry.kind for entry in domain.ledger.entries()]


def test_a_request_is_recorded_once_and_each_decision_is_told_once(domain, job, code, code_request):
    said = []
    desk, letters = RequestDesk(domain=domain, notify=said.append), Letters(job)
    assert not desk.knows(job)
    assert not desk.publish_decisions(letters)
    desk.receive(job, code)
    desk.receive(job, code)
    assert desk.knows(job)
    assert kinds(domain).count("request.received") == 1
    assert sum(code_request.plan.title in sentence for sentence in said) == 1
    assert desk.publish_decisions(letters)
    assert not desk.publish_decisions(letters)
    domain.revoke(code_request.study, "changed my mind")  # as a person does in another process
    assert desk.publish_decisions(letters)
    (_, first, _, _), (name, status, letter, reason) = letters.sent
    assert (first, name, status, reason) == (JobStatus.APPROVED, "request-1", JobStatus.REJECTED, "changed my mind")
    signed = Signed.model_validate_json(letter)
    decision = open_signed(signed, kind="decision", identity=domain.keys.identity, model=RequestDecision)
    assert (decision.study, decision.decision) == (code_request.study, "revoked")


def test_a_desk_that_was_started_again_tells_the_decision_again(domain, job, code):
    for _ in range(2):
        desk, letters = RequestDesk(domain=domain, notify=lambda sentence: None), Letters(job)
        desk.receive(job, code)
        assert desk.publish_decisions(letters)
    assert kinds(domain).count("request.received") == 1


def test_what_is_no_request_is_not_kept(domain, job, code):
    (code / "plan.yaml").write_text("title: [")
    desk = RequestDesk(domain=domain, notify=lambda sentence: None)
    with pytest.raises(FedprivError):
        desk.receive(job, code)
    assert not desk.knows(job)
    assert "request.received" not in kinds(domain)


def test_a_flood_of_requests_ends_and_known_ones_are_known_after_a_restart(domain, job, code, tmp_path, monkeypatch):
    """Each is another plan to the byte; the data owner has to read every one that is kept."""
    monkeypatch.setattr(request_desk, "MOST_UNDECIDED", 3)
    plan = (code / "plan.yaml").read_text()
    (code / "helper.py").write_text("x = 1\n")  # not the stock recipe: a person decides
    desk = RequestDesk(domain=domain, notify=lambda sentence: None)
    for number in range(3):
        (code / "plan.yaml").write_text(f"{plan}# {number}\n")
        desk.receive(job, code)
    (code / "plan.yaml").write_text(f"{plan}# 3\n")
    with pytest.raises(RefusedError, match=r"3 requests of ada@y\.org wait for the data owner already"):
        desk.receive(job, code)
    assert kinds(domain).count("request.received") == 3
    (code / "plan.yaml").write_text(f"{plan}# 2\n")
    RequestDesk(domain=domain, notify=lambda sentence: None).receive(job, code)
    domain.reject(domain.requests.studies()[0], "no")
    (code / "plan.yaml").write_text(f"{plan}# 3\n")
    with pytest.raises(RefusedError, match="refused before"):  # there is room now, but its researcher was told
        desk.receive(job, code, refused=True)
    desk.receive(job, code)
    desk.receive(job, code, refused=True)  # a data owner's own rejection of what is kept is another thing


def test_telling_decisions_reads_no_request_and_a_damaged_one_holds_nobody_up(domain, job, code, code_request):
    desk, letters = RequestDesk(domain=domain, notify=lambda sentence: None), Letters(job)
    desk.receive(job, code)
    frozen = domain.requests.recipe_path(code_request.study)
    frozen.chmod(0o600)
    frozen.write_text("changed\n")
    assert desk.publish_decisions(letters)
