"""What one peer leaves in its own place, whatever it is, keeps nobody else waiting, at a domain or at a researcher.

Each object that a peer writes for another is replaced by each thing that is none; the other peers go on.
"""

import os
import shutil
from pathlib import Path

import pytest
from syft_job.models import JobStatus

from fedpriv.study import Progress
from fedpriv.transport import OwnerSession, ResearcherSession, boxes, create_transport_keys
from fedpriv.transport import session as sessions
from tests.transport.conftest import settings

DOMAINS, RESEARCHERS = ("good@x.org", "evil@x.org"), ("ada@y.org", "eve@y.org")


@pytest.fixture
def parties(tmp_path, monkeypatch):
    """Two domains and two researchers, all connected, each of which has a file of every kind on the store."""
    monkeypatch.setattr(boxes, "_LIST_SECONDS", 0.0)
    monkeypatch.setattr(sessions, "_TEND_SECONDS", 0.0)
    keys = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in DOMAINS + RESEARCHERS}
    owners = {e: OwnerSession(settings(tmp_path, e, {r: keys[r] for r in RESEARCHERS})) for e in DOMAINS}
    researchers = {e: ResearcherSession(settings(tmp_path, e, {d: keys[d] for d in DOMAINS})) for e in RESEARCHERS}
    for _ in range(2):
        for researcher in researchers.values():
            for domain in DOMAINS:
                researcher.connect(domain)
        for owner in owners.values():
            owner.poll()
    for researcher in researchers.values():
        for domain in DOMAINS:
            researcher.submit(domain, "job-1", {"train.py": b"x = 1\n"}, entrypoint="train.py")
    for owner in owners.values():
        owner.poll()
        for job in owner.jobs():
            owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
        for researcher in RESEARCHERS:
            owner.blobs.show_progress(researcher, Progress(study="0" * 64, round=1, state="training", step=1, steps=2))
        owner.poll()
    for researcher in researchers.values():
        researcher.poll()
        for domain in DOMAINS:
            researcher.blobs.send(domain, "aggregate-1", b"x")
    return tmp_path / "store", owners, researchers


def garbage(path):
    path.write_bytes(b"{")


def other_json(path):
    path.write_bytes(b'{"inbox": "x", "outbox": [], "public_encryption_bundle": 3}')


def nothing_at_all(path):
    path.write_bytes(b"")


def too_large(path):
    with path.open("wb") as stream:
        stream.truncate(2**27)


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def link(path):
    path.symlink_to("/dev/zero")


def dangling_link(path):
    path.symlink_to("/nowhere/at/all")


def file_for_folder(path):
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"x")


EVERYTHING = [garbage, other_json, nothing_at_all, too_large, folder, pipe, link, dangling_link, file_for_folder]
NAMES = (
    *("peer", "bundle.json", "taken.json", "changed.json", "status", "inbox/000000000002", "outbox/000000000002"),
    "../../version.json",
)
THINGS = [pytest.param(NAMES, id="all"), *(pytest.param((name,), id=name, marks=pytest.mark.nightly) for name in NAMES)]
"""All of them at once; each alone takes two minutes."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", EVERYTHING, ids=lambda what: what.__name__)
@pytest.mark.parametrize("things", THINGS)
def test_the_others_go_on(parties, things, what):
    """A hostile researcher's things at a domain, and a hostile domain's at a researcher."""
    store, owners, researchers = parties
    owner, researcher = owners["good@x.org"], researchers["ada@y.org"]
    poison(store / "eve@y.org" / "to" / "good@x.org", things, what)
    poison(store / "evil@x.org" / "to" / "ada@y.org", things, what)
    assert len(owner.news()) == len(researcher.news()) == 2, "what a service looks at while it waits"
    researcher.submit("good@x.org", "job-2", {"train.py": b"x = 2\n"}, entrypoint="train.py")
    owner.poll()
    (job,) = (job for job in owner.jobs() if (job.job_name, job.ds_email) == ("job-2", "ada@y.org"))
    owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    owner.poll()
    researcher.poll()
    assert {peer for peer, _ in researcher.refused()} <= {"evil@x.org"}
    assert researcher.output("good@x.org", "job-2", "result.json") == b"{}"
    assert researcher.blobs.progress_of("evil@x.org") is None or "status" not in things
    researcher.poll()


def test_boxes_without_end_keep_nobody_else_waiting(parties, monkeypatch):
    monkeypatch.setattr(boxes, "_MOST_IN_A_BOX", 50)
    store, owners, researchers = parties
    owner, researcher = owners["good@x.org"], researchers["ada@y.org"]
    for box in (
        store / "eve@y.org" / "to" / "good@x.org" / "inbox",
        store / "evil@x.org" / "to" / "ada@y.org" / "outbox",
    ):
        for number in range(100, 200):
            (box / f"{number:012d}").write_bytes(b"x")
    researcher.submit("good@x.org", "job-2", {"train.py": b"x = 2\n"}, entrypoint="train.py")
    owner.poll()
    (job,) = (job for job in owner.jobs() if (job.job_name, job.ds_email) == ("job-2", "ada@y.org"))
    owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    owner.poll()
    researcher.poll()
    assert researcher.output("good@x.org", "job-2", "result.json") == b"{}"
    assert [who for who, why in researcher.refused() if "More than 50 things" in why] == ["evil@x.org"]


def poison(folder, things, what):
    for thing in things:
        path = Path(os.path.normpath(folder / thing))
        if any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        what(path)
