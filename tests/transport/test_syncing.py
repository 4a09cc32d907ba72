"""Messages made by an attacker who holds a peer's real keys: each is refused, named, and the next one is handled."""

from pathlib import Path

import pytest
from syft.sync.events.file_change_event import FileChangeEvent, FileChangeEventsMessage
from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage

from fedpriv.transport import said
from fedpriv.transport.messages import pack_message
from tests.transport.conftest import OWNER, RESEARCHER

INBOX = f"app_data/job/inbox/{RESEARCHER}/v1/job-1"


def propose(pair, *changes, sender=RESEARCHER):
    message = ProposedFileChangesMessage(sender_email=sender, proposed_file_changes=list(changes))
    address = pair.researcher.connection.boxes.next_address(OWNER, "inbox")
    send(pair, pack_message(message.model_dump_json().encode(), address), address)


def send(pair, data, address=None):
    peers, connection = pair.researcher.client.peer_manager.peer_store, pair.researcher.connection
    connection.boxes.put_message(address or connection.boxes.next_address(OWNER, "inbox"), peers.encrypt(OWNER, data))
    pair.owner.poll()


def change(path, content="x", datasite=OWNER, **more):
    return ProposedFileChange(datasite_email=datasite, path_in_datasite=Path(path), content=content, **more)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("app_data/job/review/ada@y.org/v1/job-1/state.yaml", "outside the folder"),
        ("private/keys.json", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        (f"{INBOX}/../../../../../../up.py", "unusual name"),
        ("app_data/job/inbox/ada@y.org/v1/<img onerror=x>/a.py", "unusual name"),
        ("app_data/job/inbox/bob@y.org/v1/job-1/a.py", "outside the folder"),
        ("app_data/job/inbox/ada@y.org/v1/lonely.py", "exactly one job"),
    ],
)
def test_files_elsewhere_are_refused(pair, path, reason):
    propose(pair, change(path))
    assert len(pair.refusals) == 1
    assert reason in pair.refusals[0]
    assert pair.owner.jobs() == []


def test_another_sender_inside_the_message_is_refused(pair):
    propose(pair, change(f"{INBOX}/code/a.py"), sender=OWNER)
    assert pair.refusals == ["A message claims another sender than the one who signed it"]


def test_deletions_and_other_datasites_are_refused(pair):
    propose(pair, change(f"{INBOX}/a.py", content=None, is_deleted=True))
    propose(pair, change(f"{INBOX}/a.py", datasite="sicu@x.org"))
    assert len(pair.refusals) == 2


def test_two_jobs_in_one_message_are_refused(pair):
    propose(pair, change(f"{INBOX}/code/a.py"), change(INBOX.replace("job-1", "job-2") + "/code/a.py"))
    assert pair.refusals == ["A message must bring exactly one job"]


def test_a_poison_message_does_not_stop_the_next_one(pair):
    connection = pair.researcher.connection
    connection.watcher_send_raw_bytes_to_inbox(OWNER, "noise.tar.gz", b"not an envelope")
    send(pair, b"not gzip")
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    assert len(pair.refusals) == 2
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]
    records = list((pair.root / OWNER / "quarantine").glob("*.json"))
    assert len(records) == 2


def outbox(pair, *events):
    peers, connection = pair.owner.client.peer_manager.peer_store, pair.owner.connection
    message, address = FileChangeEventsMessage(events=list(events)), connection.boxes.next_address(RESEARCHER, "outbox")
    data = pack_message(message.model_dump_json().encode(), address)
    connection.boxes.put_message(address, peers.encrypt(RESEARCHER, data))
    pair.researcher.poll()


def event(path, datasite=OWNER, **more):
    import uuid

    values = {"content": "x", "new_hash": "0", "submitted_timestamp": 0.0, "timestamp": 0.0, **more}
    return FileChangeEvent(id=uuid.uuid4(), path_in_datasite=Path(path), datasite_email=datasite, **values)


@pytest.mark.parametrize(
    "bad",
    [
        event(f"app_data/job/review/{RESEARCHER}/v1/j/state.yaml", datasite="sicu@x.org"),
        event("private/keys.json"),
        event(f"app_data/job/review/{RESEARCHER}/../../../../../x"),
        event(f"app_data/job/review/{RESEARCHER}/v1/j/state.yaml", content=None, is_deleted=True),
    ],
)
def test_a_domain_writes_only_where_it_reviews_our_jobs(pair, bad):
    pair.owner.poll()
    pair.researcher.poll()
    before = sorted(str(p) for p in (pair.root / RESEARCHER / "datasite").rglob("*"))
    outbox(pair, bad)
    assert sorted(str(p) for p in (pair.root / RESEARCHER / "datasite").rglob("*")) == before
    assert len(list((pair.root / RESEARCHER / "quarantine").glob("*.json"))) == 1


def test_too_many_files_in_one_answer_are_refused(pair):
    names = [f"app_data/job/review/{RESEARCHER}/v1/j/outputs/f{n}.json" for n in range(said.MAX_FILES + 1)]
    outbox(pair, *map(event, names))
    assert len(list((pair.root / RESEARCHER / "quarantine").glob("*.json"))) == 1
    assert not list((pair.root / RESEARCHER / "datasite").rglob("f*.json"))
    outbox(pair, *map(event, names[1:]))
    assert len(list((pair.root / RESEARCHER / "datasite").rglob("f*.json"))) == said.MAX_FILES
