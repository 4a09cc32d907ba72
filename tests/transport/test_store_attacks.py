"""A store that lies: shows old messages again, mixes them up, is set back or emptied, or lets a peer fill our disk."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import syft_crypto_python as syc
from syft_job.models import JobStatus

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.transport import (
    OwnerSession,
    ResearcherSession,
    boxes,
    create_transport_keys,
    owner_session,
    owner_syncing,
    quarantine,
    syncing,
    watcher_syncing,
)
from fedpriv.transport import session as session_module
from tests.transport.conftest import OWNER, RESEARCHER, settings


@pytest.fixture
def store(pair):
    return pair.root / "store"


def submit(pair, *names):
    for name in names:
        pair.researcher.submit(OWNER, name, pair.code(train=f"x = '{name}'\n"), entrypoint="train.py")


def answer(pair, name, text):
    job = next(job for job in pair.owner.jobs() if job.job_name == name)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": text})
    pair.owner.poll()


def quarantined(pair, email):
    return [json.loads(path.read_text()) for path in sorted((pair.root / email / "quarantine").glob("*.json"))]


def test_an_old_message_under_a_new_number_is_refused_and_recorded(pair, store):
    submit(pair, "job-1")
    inbox = store / RESEARCHER / "to" / OWNER / "inbox"
    (first,) = inbox.iterdir()
    kept = first.read_bytes()
    pair.owner.poll()
    (inbox / "000000000002").write_bytes(kept)
    pair.owner.poll()
    assert len(pair.refusals) == 1
    assert "under another number" in pair.refusals[0]
    (record,) = quarantined(pair, OWNER)
    assert record["peer"] == RESEARCHER
    assert record["key"].endswith("inbox/000000000002")


def test_an_older_answer_does_not_take_the_place_of_a_newer_one(pair, store):
    submit(pair, "job-1")
    pair.owner.poll()
    answer(pair, "job-1", b'"old"')
    outbox = store / OWNER / "to" / RESEARCHER / "outbox"
    old = sorted(outbox.iterdir())[-1].read_bytes()
    answer(pair, "job-1", b'"new"')
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b'"new"'
    number = int(sorted(outbox.iterdir())[-1].name) + 1
    (outbox / f"{number:012d}").write_bytes(old)
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b'"new"'
    assert "under another number" in quarantined(pair, RESEARCHER)[0]["reason"]


def test_messages_that_changed_places_are_refused(pair, store):
    submit(pair, "job-1", "job-2")
    inbox = store / RESEARCHER / "to" / OWNER / "inbox"
    one, two = sorted(inbox.iterdir())
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    pair.owner.poll()
    assert pair.owner.jobs() == []
    assert len(pair.refusals) == 2


def test_what_was_sent_to_another_box_is_refused(pair, store):
    submit(pair, "job-1")
    pair.owner.poll()
    answer(pair, "job-1", b"{}")
    outbox = store / OWNER / "to" / RESEARCHER / "outbox"
    inbox = store / OWNER / "to" / RESEARCHER / "inbox"
    shutil.copytree(outbox, inbox)
    twin = ResearcherSession(pair.researcher.settings)
    found = list(twin.connection.boxes.messages_from(OWNER, "inbox", after=0))
    with pytest.raises(Exception, match="another box"):
        syncing.open_message(twin.client.peer_manager.peer_store, found[0])


def soon(monkeypatch):
    """Let boxes be listed and looked through at every poll."""
    monkeypatch.setattr(boxes, "_LIST_SECONDS", 0.0)
    for module in (owner_syncing, watcher_syncing):
        monkeypatch.setattr(module, "TIDY_SECONDS", 0.0)
    monkeypatch.setattr(watcher_syncing, "_ACKNOWLEDGE_SECONDS", 0.0)


@pytest.mark.parametrize("how", ["set back", "emptied"])
def test_on_a_store_that_lost_what_was_sent_everything_arrives_in_the_end(tmp_path, monkeypatch, how):
    from tests.transport.conftest import make_pair

    soon(monkeypatch)
    pair = make_pair(tmp_path)
    store = tmp_path / "store"
    submit(pair, "job-1")
    pair.owner.poll()
    shutil.copytree(store, tmp_path / "older")
    answer(pair, "job-1", b"1")  # not taken yet
    submit(pair, "job-2")  # not taken yet
    shutil.rmtree(store)
    if how == "set back":
        shutil.copytree(tmp_path / "older", store)
    else:
        store.mkdir()
    for _ in range(3):
        pair.researcher.poll()
        pair.owner.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"1"
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1", "job-2"]
    assert pair.refusals == []
    assert quarantined(pair, RESEARCHER) == []


@pytest.mark.parametrize("how", ["emptied", "changed", "set back"])
def test_what_others_read_of_a_party_is_put_back_without_a_restart(tmp_path, monkeypatch, how):
    """Without it a new study, or a party with a restored backup, waits for keys and versions for ever."""
    from tests.transport.conftest import make_pair

    monkeypatch.setattr(session_module, "_TEND_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "_SHOWN_SECONDS", 0.0)
    monkeypatch.setattr(owner_session, "_MOCK_SECONDS", 0.0)
    pair = make_pair(tmp_path)
    said = {"identity.json": b"{}", "fedpriv.json": b"{1}"}
    pair.owner = OwnerSession(replace(pair.owner.settings, public=said))
    pair.owner.poll()
    store = tmp_path / "store"
    bundle = store / OWNER / "to" / RESEARCHER / "bundle.json"
    before = bundle.read_bytes()
    if how == "emptied":
        shutil.rmtree(store)
        store.mkdir()
    else:
        for path in (bundle, *(store / OWNER / name for name in said)):
            path.write_bytes(b"older" if how == "set back" else b"x" * 10**6)
    pair.owner.poll()
    assert {name: (store / OWNER / name).read_bytes() for name in said} == said
    assert bundle.read_bytes() == before


def test_what_cannot_be_put_back_is_told_once_and_keeps_nothing_else_waiting(tmp_path, monkeypatch):
    from tests.transport.conftest import make_pair

    monkeypatch.setattr(session_module, "_TEND_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "_SHOWN_SECONDS", 0.0)
    pair = make_pair(tmp_path)
    said = {"fedpriv.json": b"{1}", "identity.json": b"{}"}
    pair.owner = OwnerSession(replace(pair.owner.settings, public=said))
    pair.owner.poll()
    bundle = tmp_path / "store" / OWNER / "to" / RESEARCHER / "bundle.json"
    for path in (bundle, *(tmp_path / "store" / OWNER / name for name in said)):
        path.unlink()
    (tmp_path / "store" / OWNER / "fedpriv.json" / "in").mkdir(parents=True)
    submit(pair, "job-1")
    for _ in range(3):
        pair.owner.poll()
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]
    assert (tmp_path / "store" / OWNER / "identity.json").read_bytes() == b"{}"
    assert bundle.exists()
    assert [reason for reason in pair.refusals if "fedpriv.json" in reason] == pair.refusals
    assert len(pair.refusals) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("how", ["emptied", "set back", "half", "cut short"])
def test_mock_data_that_a_store_lost_are_put_back(tmp_path, monkeypatch, how, is_restarted):
    from tests.transport.conftest import make_pair

    monkeypatch.setattr(session_module, "_TEND_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "_SHOWN_SECONDS", 0.0)
    monkeypatch.setattr(owner_session, "_MOCK_SECONDS", 0.0)
    pair = make_pair(tmp_path)
    store, mock, pointer = tmp_path / "store", tmp_path / "mock", tmp_path / "pointer.json"
    shutil.copytree(store, tmp_path / "older")
    mock.mkdir()
    for name in ("examples.jsonl", "schema.json"):
        (mock / name).write_text(f"{name} is made up\n")
    pointer.write_text("{}")
    pair.owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    shown = store / OWNER / "collections"
    before = {path: path.read_bytes() for path in shown.rglob("*") if path.is_file()}
    if how in ("emptied", "set back"):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "older", store) if how == "set back" else store.mkdir()
    else:
        for path in (path for path in before if path.name == "examples.jsonl"):
            path.unlink() if how == "half" else path.write_bytes(b"")
    if is_restarted:
        pair.owner = OwnerSession(pair.owner.settings)
        pair.owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    pair.owner.poll()
    assert {path: path.read_bytes() for path in shown.rglob("*") if path.is_file()} == before
    pair.researcher.fetch_datasets(OWNER)
    (dataset,) = pair.researcher.client.dataset_manager.get_all(OWNER)
    assert sorted(path.name for path in dataset.mock_files) == ["examples.jsonl", "schema.json"]


def test_of_mock_data_that_lie_there_nothing_is_sent_again(tmp_path, monkeypatch):
    from tests.transport.conftest import make_pair

    monkeypatch.setattr(session_module, "_TEND_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "_SHOWN_SECONDS", 0.0)
    monkeypatch.setattr(owner_session, "_MOCK_SECONDS", 0.0)
    pair = make_pair(tmp_path)
    mock, pointer, asked = tmp_path / "mock", tmp_path / "pointer.json", []
    mock.mkdir()
    (mock / "examples.jsonl").write_text("made up\n")
    pointer.write_text("{}")
    pair.owner.register_dataset("mimic-iii", mock=mock, pointer=pointer, summary="a shard")
    pair.owner.poll()
    store = type(pair.owner.connection.store)

    def counted(name, does):
        return lambda self, key, *rest, **named: (asked.append((name, key)), does(self, key, *rest, **named))[1]

    for name in ("put", "get", "look", "entries"):
        monkeypatch.setattr(store, name, counted(name, getattr(store, name)))
    pair.owner.poll()
    assert [name for name, key in asked if "/collections/" in key] == ["entries"]


def test_what_both_took_is_deleted_and_a_box_does_not_grow(tmp_path, monkeypatch):
    from tests.transport.conftest import make_pair

    soon(monkeypatch)
    pair = make_pair(tmp_path)
    for number in range(5):
        submit(pair, f"job-{number}")
        pair.owner.poll()
        answer(pair, f"job-{number}", b"1")
        pair.researcher.poll()
    pair.owner.poll()
    for box in (f"{RESEARCHER}/to/{OWNER}/inbox", f"{OWNER}/to/{RESEARCHER}/outbox"):
        assert pair.owner.connection.store.entries(box) == []
    for session in (pair.owner, pair.researcher):
        assert session.connection.journal.words("message/") == {}


def test_a_peer_that_fills_the_disk_is_refused_and_others_are_not(pair, monkeypatch):
    monkeypatch.setattr(syncing, "MAX_HELD_BYTES", 100_000)
    big = {"train.py": b"x = 1\n" * 10_000}
    for name in ("job-1", "job-2", "job-3"):
        pair.researcher.submit(OWNER, name, big, entrypoint="train.py")
    pair.owner.poll()
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]
    assert len(pair.refusals) == 2
    assert "as much as one peer may" in pair.refusals[0]
    again = OwnerSession(pair.owner.settings)
    pair.researcher.submit(OWNER, "job-4", big, entrypoint="train.py")
    again.poll()
    assert [job.job_name for job in again.jobs()] == ["job-1"], "what lies there counts after a restart, too"


def test_many_tiny_files_count_as_what_they_take(pair, monkeypatch):
    monkeypatch.setattr(syncing, "MAX_HELD_BYTES", 60 * 4096)
    pair.researcher.submit(OWNER, "job-1", {f"f{n}.py": b"" for n in range(60)}, entrypoint="f0.py")
    pair.owner.poll()
    assert pair.owner.jobs() == []
    assert "as much as one peer may" in pair.refusals[0]


def test_a_domain_that_fills_the_researcher_s_disk_is_refused(pair, monkeypatch):
    monkeypatch.setattr(syncing, "MAX_HELD_BYTES", 60_000)
    submit(pair, "job-1", "job-2", "job-3")
    pair.owner.poll()
    answer(pair, "job-1", b"1" * 30_000)
    answer(pair, "job-1", b"2" * 30_000)  # takes the place of the first
    answer(pair, "job-2", b"3" * 30_000)
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"2" * 30_000
    assert pair.researcher.output(OWNER, "job-2", "result.json") is None
    (record,) = quarantined(pair, RESEARCHER)
    assert record["reason"] == "The results of this peer take as much as one peer may"
    again = ResearcherSession(pair.researcher.settings)
    answer(pair, "job-3", b"4" * 30_000)
    again.poll()
    assert again.output(OWNER, "job-3", "result.json") is None, "what lies there counts after a restart, too"


def test_mock_data_without_end_is_not_taken(pair, monkeypatch):
    monkeypatch.setattr(watcher_syncing, "MAX_MOCK_BYTES", 5 * 4096)
    folder = f"{OWNER}/collections/syft_datasetcollection/mimic-iii--0"
    for number in range(6):
        pair.owner.connection.store.put(f"{folder}/f{number}.csv", b"x")
    with pytest.raises(UntrustedError, match=r"mock data of micu@x.org takes more than"):
        pair.researcher.fetch_datasets(OWNER)
    assert not list((pair.root / RESEARCHER / "datasite").rglob("f*.csv"))


def test_records_of_refusals_do_not_fill_the_disk(pair, monkeypatch):
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED", 5)
    for _ in range(12):
        pair.researcher.connection.watcher_send_raw_bytes_to_inbox(OWNER, "noise", b"noise")
    pair.owner.poll()
    assert len(pair.refusals) == 12
    numbers = sorted(int(record["key"][-12:]) for record in quarantined(pair, OWNER))
    assert numbers == [8, 9, 10, 11, 12], "the newest are kept"


@pytest.mark.parametrize("what", ["all", "keys", "keys and signatures"])
def test_swapped_key_bundles_are_refused(tmp_path, what):
    """Somebody who writes to the store puts own keys in the place of the domain's, whole or behind its identity."""
    pins = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in (OWNER, RESEARCHER)}
    owner = OwnerSession(settings(tmp_path, OWNER, {RESEARCHER: pins[RESEARCHER]}))
    researcher = ResearcherSession(settings(tmp_path, RESEARCHER, {OWNER: pins[OWNER]}))
    researcher.connect(OWNER)
    owner.poll()
    path = tmp_path / "store" / OWNER / "to" / RESEARCHER / "bundle.json"
    message = json.loads(path.read_text())
    theirs = syc.SyftRecoveryKey.generate().derive_keys().to_public_bundle().to_did_document(f"did:syft:{OWNER}")
    document = copy.deepcopy(message["public_encryption_bundle"])
    if what == "all":
        document = theirs | {"identity": OWNER}
    else:
        for ours, other in zip(document["keyAgreement"], theirs["keyAgreement"], strict=True):
            ours["publicKeyJwk"]["x"] = other["publicKeyJwk"]["x"]
            if what == "keys and signatures":
                ours["publicKeyJwk"]["signature"] = other["publicKeyJwk"]["signature"]
    path.write_text(json.dumps(message | {"public_encryption_bundle": document}))
    with pytest.raises(SignatureError, match="encryption"):
        researcher.connect(OWNER)
    assert not researcher.is_connected(OWNER)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "../../up", "job 1", "x" * 200, ".hidden"])
def test_names_with_markup_or_paths_never_arrive(pair, name):
    from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage

    from fedpriv.transport.messages import pack_message

    path = Path(f"app_data/job/inbox/{RESEARCHER}/v1/{name}/code/train.py")
    change = ProposedFileChange(datasite_email=OWNER, path_in_datasite=path, content="x")
    message = ProposedFileChangesMessage(sender_email=RESEARCHER, proposed_file_changes=[change])
    ours, peers = pair.researcher.connection, pair.researcher.client.peer_manager.peer_store
    address = ours.boxes.next_address(OWNER, "inbox")
    ours.boxes.put_message(address, peers.encrypt(OWNER, pack_message(message.model_dump_json().encode(), address)))
    pair.owner.poll()
    assert pair.owner.jobs() == []
    assert len(pair.refusals) == 1
    assert name not in pair.refusals[0]
