"""Jobs, answers and datasets between two real syft sessions."""

import errno
import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from syft_job.models import JobStatus

from fedpriv.errors import SignatureError, UnreachableError
from fedpriv.transport import OwnerSession, ResearcherSession, create_transport_keys, folder
from fedpriv.transport import session as session_module
from tests.transport.conftest import OWNER, RESEARCHER, settings


def test_a_job_arrives_whole_and_its_answer_comes_back(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n", more="y = 2\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    assert job.ds_email == RESEARCHER
    assert {p.name: p.read_text() for p in pair.owner.code_folder(job).iterdir()} == {
        "train.py": "x = 1\n",
        "more.py": "y = 2\n",
    }
    assert pair.owner.status(job) is JobStatus.RECEIVED
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b'{"a": 1}'})
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b'{"a": 1}'


class Clock:
    """Time that passes in sleeps only; what is due is done as soon as it has passed."""

    def __init__(self, *due):
        self.now, self.due = 0.0, list(due)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        while self.due and self.due[0][0] <= self.now:
            self.due.pop(0)[1]()


@pytest.mark.parametrize("who", ["owner", "researcher"])
def test_waiting_ends_soon_after_something_came_and_else_in_time(pair, monkeypatch, who):
    session, peer = getattr(pair, who), getattr(pair, "researcher" if who == "owner" else "owner")
    box = {"owner": "inbox", "researcher": "outbox"}[who]

    def put(name):
        return lambda: peer.connection.store.put(peer.connection.key(session.settings.email, box, name), b"it")

    mark = session.news()
    clock = Clock((1.0, put("00000001-one")))
    monkeypatch.setattr(session_module, "time", clock)
    session.wait(mark, 60.0)
    assert 1.0 <= clock.now < 1.1
    assert session.news() != mark
    session.wait(session.news(), 60.0)
    assert clock.now == pytest.approx(61.0, abs=0.2)


def test_what_came_before_waiting_began_ends_it_too(pair, monkeypatch):
    mark = pair.owner.news()
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    monkeypatch.setattr(session_module, "time", clock := Clock())
    pair.owner.wait(mark, 60.0)
    assert clock.now < 0.1


def test_a_store_that_cannot_tell_is_waited_for_in_one_sleep(pair, monkeypatch):
    monkeypatch.setattr(type(pair.owner.connection.store), "stamp", lambda self, prefix: None)
    monkeypatch.setattr(session_module, "time", clock := Clock())
    slept = []
    clock.sleep = lambda seconds, sleep=clock.sleep: (slept.append(seconds), sleep(seconds))
    pair.owner.wait(pair.owner.news(), 3.0)
    assert slept == [3.0]


def test_a_job_that_was_rejected_unread_says_why(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    assert pair.researcher.refusal(OWNER, "job-1") is None
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    pair.owner.answer(job, JobStatus.REJECTED, {}, reason="the plan is not valid")
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.refusal(OWNER, "job-1") == "the plan is not valid"


def test_the_same_job_again_changes_nothing_and_a_changed_one_is_refused(pair):
    code = pair.code(train="x = 1\n")
    for _ in range(2):
        pair.researcher.submit(OWNER, "job-1", code, entrypoint="train.py")
        pair.owner.poll()
    assert pair.refusals == []
    pair.researcher.submit(OWNER, "job-1", pair.code(train="import os\n"), entrypoint="train.py")
    pair.owner.poll()
    assert pair.refusals == ["The job job-1 was changed after it was submitted"]
    (job,) = pair.owner.jobs()
    assert (pair.owner.code_folder(job) / "train.py").read_text() == "x = 1\n"


def test_an_answer_survives_a_restart_between_writing_and_sending(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    restarted = OwnerSession(pair.owner.settings)  # the first one is gone before it polled
    restarted.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"{}"


def test_taken_messages_are_deleted_by_their_sender(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    pair.researcher.connection.boxes.tidy(OWNER, "inbox")
    assert pair.researcher.connection.store.entries(f"{RESEARCHER}/to/{OWNER}/inbox") == []


def test_outsiders_see_the_mock_side_only(pair):
    mock = pair.root / "mock"
    mock.mkdir()
    (mock / "examples.jsonl").write_text('{"text": "made up"}\n')
    pointer = pair.root / "pointer.json"
    pointer.write_text("{}")
    for _ in range(2):
        pair.owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    pair.researcher.fetch_datasets(OWNER)
    (dataset,) = pair.researcher.client.dataset_manager.get_all(OWNER)
    assert [path.name for path in dataset.mock_files] == ["examples.jsonl"]
    assert "pointer" not in json.dumps([str(p) for p in (pair.root / RESEARCHER).rglob("*")])


@pytest.mark.parametrize("broken_at", ["_copy_private_data", "write_dataset_metadata", "write_private_config"])
def test_a_registering_that_a_full_disk_ended_is_done_once_there_is_room(pair, monkeypatch, broken_at):
    mock, pointer = pair.root / "mock", pair.root / "pointer.json"
    mock.mkdir()
    (mock / "examples.jsonl").write_text("made up")
    pointer.write_text("{}")
    storage = type(pair.owner.client.dataset_manager.storage)

    def full(self, ref, *_):
        self.metadata_path(ref).touch()  # what was begun of a file
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(storage, broken_at, full)
        with pytest.raises(OSError, match="No space"):
            pair.owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    owner = OwnerSession(pair.owner.settings)
    owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    owner.poll()
    pair.researcher.fetch_datasets(OWNER)
    (dataset,) = pair.researcher.client.dataset_manager.get_all(OWNER)
    assert [path.name for path in dataset.mock_files] == ["examples.jsonl"]


def test_nothing_readable_but_mocks_and_public_keys_lies_on_the_store(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="unmistakable = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    stored = b"".join(p.read_bytes() for p in (pair.root / "store").rglob("*") if p.is_file())
    assert stored
    assert b"unmistakable" not in stored


def test_another_key_on_the_store_than_the_pinned_one_is_refused(tmp_path):
    pins = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in (OWNER, RESEARCHER)}
    owner = OwnerSession(settings(tmp_path, OWNER, {RESEARCHER: pins[RESEARCHER]}))
    researcher = ResearcherSession(settings(tmp_path, RESEARCHER, {OWNER: "ab" * 32}))
    researcher.connect(OWNER)
    owner.poll()
    with pytest.raises(SignatureError, match="another encryption key"):
        researcher.connect(OWNER)


def test_strangers_do_not_exist(pair):
    create_transport_keys("eve@z.org", pair.root / "eve@z.org" / "keys.json")
    eve = ResearcherSession(settings(pair.root, "eve@z.org", {OWNER: pair.researcher.settings.pins[OWNER]}))
    eve.connect(OWNER)
    pair.owner.poll()
    assert not eve.connect(OWNER)
    assert not pair.owner.is_connected("eve@z.org")


def test_key_files_are_private(pair):
    for email in (OWNER, RESEARCHER):
        mode = (pair.root / email / "keys.json").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_syfts_own_client_lists_a_job_and_its_answer_on_both_sides(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    (listed,) = pair.owner.client.job_client.jobs
    assert (listed.name, listed.submitted_by, listed.status) == ("job-1", RESEARCHER, "pending")
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    pair.researcher.poll()
    (listed,) = pair.researcher.client.job_client.jobs
    assert (listed.name, listed.status) == ("job-1", "done")


def test_every_answer_is_sent_once_and_many_in_several_messages(pair):
    names = [f"job-{number:02d}" for number in range(40)]
    for name in names:
        pair.researcher.submit(OWNER, name, pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.receive()
    assert [job.job_name for job in pair.owner.jobs()] == names
    for job in pair.owner.jobs():
        pair.owner.answer(job, JobStatus.DONE, {"result.json": job.job_name.encode()})
    store, outbox = pair.owner.connection.store, f"{OWNER}/to/{RESEARCHER}/outbox"
    before = len(store.entries(outbox))
    pair.owner.publish()
    assert len(store.entries(outbox)) == before + 2  # 80 files, 64 a message
    pair.owner.publish()
    OwnerSession(pair.owner.settings).poll()
    assert len(store.entries(outbox)) == before + 2
    pair.researcher.poll()
    assert [pair.researcher.output(OWNER, name, "result.json") for name in names] == [name.encode() for name in names]


def test_an_answer_that_is_written_again_within_a_step_of_the_disks_times_is_sent(pair, monkeypatch):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    now, look = time.time(), Path.stat

    def coarse(path, **how):
        found = look(path, **how)
        if path.name != "result.json":
            return found
        step = int(now)  # one inode, as where the freed one is used again at once
        return os.stat_result((found.st_mode, 1, *found[2:7], step, step, step))

    monkeypatch.setattr(Path, "stat", coarse)
    for words in (b"one", b"two"):
        pair.owner.answer(job, JobStatus.DONE, {"result.json": words})
        pair.owner.poll()
        pair.researcher.poll()
        assert pair.researcher.output(OWNER, "job-1", "result.json") == words
    later, read = now + 60, []
    monkeypatch.setattr("fedpriv.transport.owner_syncing.time.time", lambda: later)
    monkeypatch.setattr("fedpriv.transport.owner_syncing.sha256_hex", lambda data: read.append(data) or "x")
    path = next((pair.root / OWNER / "datasite" / OWNER).rglob("result.json"))
    for _ in range(3):
        pair.owner._syncer._digest(path)
    assert read == [b"two"]  # an old one is read no more


def test_with_a_journal_lost_on_both_sides_messages_still_arrive(pair):
    for name in ("job-1", "job-2"):
        pair.researcher.submit(OWNER, name, pair.code(train="x = 1\n"), entrypoint="train.py")
        pair.owner.poll()
        job = next(job for job in pair.owner.jobs() if job.job_name == name)
        pair.owner.answer(job, JobStatus.DONE, {"result.json": b"1"})
        pair.owner.poll()
        pair.researcher.poll()
    pair.researcher.connection.boxes.tidy(OWNER, "inbox")  # nothing of the researcher's lies on the store any more
    for session in (pair.owner, pair.researcher):
        for path in session.connection._settings.state_folder.glob("journal.db*"):
            path.unlink()
    owner, researcher = OwnerSession(pair.owner.settings), ResearcherSession(pair.researcher.settings)
    researcher.submit(OWNER, "job-3", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()  # a service that goes on knows that it took two
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1", "job-2", "job-3"]
    owner.answer(pair.owner.jobs()[2], JobStatus.DONE, {"result.json": b"3"})
    owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-3", "result.json") == b"3"


HALF_A_PAIR = b'{"word": {"sender": "\\ud800", "recipient": "x", "box": "inbox", "number": 1}}'


@pytest.mark.parametrize(
    "said", [b"[1]", b'{"inbox": "9"}', b'{"inbox": -4}', b'{"inbox": 1e30}', b'{"inbox": 999999999999}', HALF_A_PAIR]
)
def test_an_acknowledgement_that_cannot_be_true_deletes_nothing_and_moves_no_number(pair, said):
    store = pair.researcher.connection.store
    store.put(f"{OWNER}/to/{RESEARCHER}/taken.json", said)
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    assert [int(entry.name) for entry in store.entries(f"{RESEARCHER}/to/{OWNER}/inbox")] == [1]
    pair.owner.poll()
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]


def test_a_session_makes_no_new_store_where_it_knew_one(pair, monkeypatch):
    """Of a process that starts while the share is not mounted: it has never seen the folder itself."""
    (pair.root / "store").rename(pair.root / "elsewhere")
    monkeypatch.setattr(folder, "_SEEN", set())
    for session in (pair.owner, pair.researcher):
        with pytest.raises(
            UnreachableError, match="mount the share; if a new store is to begin there, make the folder"
        ):
            type(session)(session.settings)
    assert not (pair.root / "store").exists()
    elsewhere = replace(pair.owner.settings, store_url=str(pair.root / "another" / "store"))
    (pair.root / "another").mkdir()
    OwnerSession(elsewhere)  # a store of another address is a new one
    assert (pair.root / "another" / "store").exists()
    (pair.root / "elsewhere").rename(pair.root / "store")
    OwnerSession(pair.owner.settings).poll()
