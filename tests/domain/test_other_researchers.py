"""What one pinned researcher sends changes nothing for another one's study: jobs are told apart by who sent them."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from syft_job.job_ref import JobRef
from syft_job.models import JobStatus

from fedpriv.domain import Domain
from fedpriv.domain.service import DomainService
from fedpriv.errors import TransportError, UnreachableError
from fedpriv.protection import IdentityKeys, sign, signed_identity
from fedpriv.study import Progress, Result, Ticket
from fedpriv.study.plan import MemberChoice
from fedpriv.transport.store import Store
from tests.domain.conftest import ADA

EVE = "eve@y.org"


@dataclass
class Letters:
    """Jobs that were taken from the store, and what is answered."""

    root: Path
    refs: list[JobRef] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[JobStatus, str]] = field(default_factory=dict)
    progress: list[tuple[str, Progress]] = field(default_factory=list)

    @property
    def blobs(self):
        return SimpleNamespace(show_progress=lambda *news: self.progress.append(news))

    def add(self, sender, name, files):
        folder = self.root / sender / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.refs.append(JobRef("micu@x.org", sender, name, "1"))
        self.refs.sort(key=lambda ref: (ref.job_name, ref.ds_email))

    def jobs(self):
        return self.refs

    def code_folder(self, job):
        return self.root / job.ds_email / job.job_name

    def status(self, job):
        return self.answers.get((job.ds_email, job.job_name), (JobStatus.RECEIVED, ""))[0]

    def answer(self, job, status, files, *, reason=""):
        self.answers[job.ds_email, job.job_name] = (status, reason)


@pytest.fixture
def eve():
    return IdentityKeys.create(EVE, "eve", "33" * 32)


@pytest.fixture
def two(domain, eve):
    """The domain with both researchers pinned."""
    pinned = (*domain.config.researchers, MemberChoice(email=EVE, fingerprint=eve.fingerprint))
    config = domain.config.model_copy(update={"researchers": pinned})
    return Domain(folder=domain.folder, config=config, keys=domain.keys)


@pytest.fixture
def service(two, ada, eve, tmp_path, monkeypatch):
    """The service between the store and the work of a study: which tickets are let through, and who is answered."""
    said = []
    service = DomainService(domain=two, notify=said.append)
    service._session = Letters(tmp_path / "jobs")
    service._researchers = {ADA: ada.identity, EVE: eve.identity}
    service._tickets.connect(service._session, service._researchers)
    service._versions = service._tickets.versions = SimpleNamespace(require=lambda *_, **__: None)
    service._marking = SimpleNamespace(put=lambda _: None)
    done = []

    def carry_out(ticket, digest):
        done.append((ticket.kind, ticket.round))
        return Result(
            study=ticket.study,
            ticket_sha256=digest,
            kind=ticket.kind,
            round=ticket.round,
            member="micu@x.org",
            status="done",
            metrics={"heldout_loss": 1.5},
        )

    work = SimpleNamespace(
        carry_out=carry_out,
        context=SimpleNamespace(key_room=SimpleNamespace(retired_key=lambda: "")),
        releasing=SimpleNamespace(is_undecided=lambda _: False),
    )
    monkeypatch.setattr(service._tickets, "_work", lambda ticket, folder: work)
    return SimpleNamespace(service=service, letters=service._session, done=done, said=said, work=work)


@pytest.fixture
def asked(service, code_request):
    """Ada's request is in and approved."""
    service.letters.add(ADA, "request-1", code_request.files)
    service.service._handle_jobs()
    return service


def ticket(request, **more):
    return Ticket(study=request.study, member="micu@x.org", **more)


def test_a_ticket_for_a_study_of_another_researcher_is_refused(asked, code_request, eve, two):
    stolen = ticket(code_request, kind="skip", round=1)
    asked.letters.add(EVE, stolen.name, {"ticket.json": sign(eve, "ticket", stolen).to_bytes()})
    asked.service._handle_jobs()
    assert asked.done == []
    status, reason = asked.letters.answers[EVE, stolen.name]
    assert status is JobStatus.REJECTED
    assert "another researcher" in reason
    assert [entry.facts["job"] for entry in two.ledger.entries() if entry.kind == "job.refused"] == [stolen.name]


def test_garbage_under_the_name_of_a_ticket_does_not_keep_the_ticket_back(asked, code_request, ada):
    honest = ticket(code_request, kind="train", round=1)
    asked.letters.add(EVE, honest.name, {"ticket.json": b"{"})
    asked.service._handle_jobs()
    asked.letters.add(ADA, honest.name, {"ticket.json": sign(ada, "ticket", honest).to_bytes()})
    asked.service._handle_jobs()
    assert asked.done == [("train", 1)]
    assert asked.letters.answers[ADA, honest.name][0] is JobStatus.DONE
    assert asked.letters.answers[EVE, honest.name][0] is JobStatus.REJECTED


@pytest.mark.parametrize("first", [EVE, ADA])
def test_a_request_is_its_researchers_alone(service, code_request, first):
    """Neither the same request from somebody else, nor another one under its name, comes in its way."""
    second = ADA if first == EVE else EVE
    service.letters.add(first, "request-1", code_request.files)
    service.service._handle_jobs()
    service.letters.add(second, "request-1", code_request.files)
    service.service._handle_jobs()
    service.service._requests.publish_decisions(service.letters)
    status, reason = service.letters.answers[EVE, "request-1"]
    assert status is JobStatus.REJECTED
    assert "The plan's researcher is ada@y.org" in reason
    assert service.letters.answers[ADA, "request-1"][0] is JobStatus.APPROVED


def test_what_cannot_be_read_for_one_ticket_keeps_no_other_one_waiting(asked, code_request, ada, monkeypatch):
    def carry_out(ticket, digest, whole=asked.work.carry_out):
        if ticket.round == 1:
            raise TransportError("The store refused to read aggregate-1")
        return whole(ticket, digest)

    asked.work.carry_out = carry_out
    for number in (1, 2):
        job = ticket(code_request, kind="train", round=number)
        asked.letters.add(ADA, job.name, {"ticket.json": sign(ada, "ticket", job).to_bytes()})
    for _ in range(2):
        asked.service._handle_jobs()
    assert asked.done == [("train", 2)]
    assert sum("refused to read aggregate-1" in line for line in asked.said) == 1, "it is told once"


def test_a_store_that_does_not_answer_is_waited_for(asked, code_request, ada):
    def away(ticket, digest):
        raise UnreachableError("The store does not answer")

    asked.work.carry_out = away
    job = ticket(code_request, kind="train", round=1)
    asked.letters.add(ADA, job.name, {"ticket.json": sign(ada, "ticket", job).to_bytes()})
    with pytest.raises(UnreachableError):
        asked.service._handle_jobs()
    assert (ADA, job.name) not in asked.letters.answers


def test_keys_of_one_researcher_that_cannot_be_used_are_told_once_and_the_others_connect(two, ada):
    store = Store.from_url(two.config.store)
    store.put(f"{ADA}/identity.json", signed_identity(ada))
    store.put(f"{EVE}/identity.json", b"{")
    service = DomainService(domain=two, notify=lambda line: None)
    for _ in range(3):
        assert list(two.pinned_researchers(service._on_identity)) == [ADA]
    refused = [entry.facts["peer"] for entry in two.ledger.entries() if entry.kind == "message.refused"]
    assert refused == [EVE]
