"""What syft's own sessions get wrong, tried on ours: the rest of the list in docs/syft.md, where tests are named."""

import contextlib
import errno
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from syft.sync.connections.base_connection import SyftboxPlatformConnection
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncer
from syft_datasets.config import SyftBoxConfig
from syft_job import SyftJobConfig
from syft_job.models import JobStatus
from syft_rds.client import SyftRDSClient
from syft_rds.config import SyftRDSClientConfig

from fedpriv.errors import TransportError
from fedpriv.transport import OwnerSession, syncing
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.session import _manager_config
from tests.transport.conftest import OWNER, RESEARCHER


def submit(pair, name="job-1"):
    pair.researcher.submit(OWNER, name, pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    return next(job for job in pair.owner.jobs() if job.job_name == name)


def test_a_message_that_the_store_did_not_take_is_sent_again(pair, monkeypatch):
    """Stock loses the events of a failed write to the outbox for good."""
    job = submit(pair)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    put, failures = pair.owner.connection.store.put, [1]

    def put_once_it_works(key, data):
        if failures and "/outbox/" in key:
            failures.pop()
            raise TransportError("The store refused")
        put(key, data)

    monkeypatch.setattr(pair.owner.connection.store, "put", put_once_it_works)
    with pytest.raises(TransportError):
        pair.owner.poll()
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, job.job_name, "result.json") == b"{}"


def test_what_was_rejected_stays_rejected_after_a_restart(pair):
    """Stock writes an older state over a newer one when it starts."""
    job = submit(pair)
    pair.owner.answer(job, JobStatus.REJECTED, {}, reason="not here")
    pair.owner.poll()
    for _ in range(2):
        restarted = OwnerSession(pair.owner.settings)
        restarted.poll()
        assert restarted.status(job) is JobStatus.REJECTED
    pair.researcher.poll()
    assert pair.researcher.refusal(OWNER, job.job_name) == "not here"


def test_states_and_checkpoints_that_stock_starts_from_are_never_asked_for(pair, monkeypatch):
    """Stock's owner starts from what lies on the store under these names: whoever put an old one there sets it back."""
    job = submit(pair)
    pair.owner.answer(job, JobStatus.REJECTED, {}, reason="not here")
    pair.owner.poll()
    asked = []
    names = [name for name in dir(SyftboxPlatformConnection) if "rolling_state" in name or "checkpoint" in name]
    assert len(names) >= 6, "stock has other names for them now"
    for name in names:
        monkeypatch.setattr(StoreConnection, name, lambda *_, said=name, **__: asked.append(said))
    local = [name for name in dir(DatasiteOwnerSyncer) if name.startswith(("_load_rolling", "_apply_rolling"))]
    assert local
    for name in local:
        monkeypatch.setattr(DatasiteOwnerSyncer, name, lambda *_, said=name, **__: asked.append(said))
    restarted = OwnerSession(pair.owner.settings)
    restarted.poll()
    assert asked == []
    assert restarted.status(job) is JobStatus.REJECTED


def test_an_owners_clock_that_steps_back_loses_nothing(pair, monkeypatch):
    """Stock decides by the owner's clock what is new."""
    first, second = submit(pair, "job-1"), submit(pair, "job-2")
    pair.owner.answer(first, JobStatus.DONE, {"result.json": b"1"})
    pair.owner.poll()
    pair.researcher.poll()
    day_before = time.time() - 86_400
    monkeypatch.setattr(syncing.time, "time", lambda: day_before)
    pair.owner.answer(second, JobStatus.DONE, {"result.json": b"2"})
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-2", "result.json") == b"2"


def test_a_binary_file_is_refused_with_a_sentence_before_anything_is_sent(pair):
    """Stock fails in its queue, in text mode."""
    with pytest.raises(TransportError, match=r"train\.py is not a text"):
        pair.researcher.submit(OWNER, "job-1", {"train.py": b"\xff\x00\x80"}, entrypoint="train.py")
    assert pair.researcher.connection.store.entries(f"{RESEARCHER}/to/{OWNER}/inbox") == []


def test_nothing_is_printed(pair, capsys):
    """Stock has some ninety prints, which break a progress view and a JSON answer."""
    job = submit(pair)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    pair.researcher.poll()
    assert capsys.readouterr() == ("", "")


def test_a_state_that_cannot_be_written_leaves_the_old_one_whole(pair, monkeypatch):
    """Stock writes state.yaml in place."""
    job = submit(pair)
    pair.owner.answer(job, JobStatus.APPROVED, {})

    def full(path, data, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fedpriv.transport.owner_session.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        pair.owner.answer(job, JobStatus.DONE, {})
    assert pair.owner.status(job) is JobStatus.APPROVED


def test_an_unmodified_client_of_syft_over_our_connection_lists_our_requests_and_states(pair):
    job = submit(pair)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    folder = pair.root / "another machine"
    shutil.copytree(pair.root / RESEARCHER, folder)
    shutil.rmtree(folder / "datasite" / OWNER / "app_data" / "job" / "review", ignore_errors=True)
    ours = replace(pair.researcher.settings, folder=folder, keys_path=folder / "keys.json")
    box = folder / "datasite"
    client = SyftRDSClient.from_config(
        SyftRDSClientConfig(
            sync=_manager_config(ours, owner=False),
            job=SyftJobConfig(syftbox_folder=box, current_user_email=RESEARCHER, has_do_role=False),
            dataset=SyftBoxConfig(syftbox_folder=box, email=RESEARCHER),
        )
    )
    client.load_peers(force_download=True)
    (listed,) = client.job_client.jobs
    assert listed.status == "received", "the answer is not here yet"
    client.sync()
    assert type(client.sync_engine.datasite_watcher_syncer).__module__.startswith("syft.")
    (listed,) = client.job_client.jobs
    assert (listed.name, listed.submitted_by, listed.status) == ("job-1", RESEARCHER, "done")


@pytest.mark.timeout(30)
def test_a_callback_that_syncs_does_not_wait_for_itself(pair):
    """Stock calls back while it holds its lock, and waits in it for ever."""
    called = []

    def sync_again(*_):
        called.append(1)
        pair.owner.poll()

    syncer = pair.owner.client.sync_engine.datasite_owner_syncer
    syncer.event_cache.add_callback("on_event_local_write", sync_again)
    job = submit(pair)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    assert pair.owner.status(job) is JobStatus.DONE
    assert len(called) < 10


def test_the_private_side_is_never_read_by_a_sync(pair, opened_files):
    """Stock reads all of the private dataset into memory at every sync."""
    mock, private = pair.root / "mock", pair.root / "private"
    for folder, name in ((mock, "examples.jsonl"), (private, "pointer.json")):
        folder.mkdir()
        (folder / name).write_text("{}")
    pair.owner.register_dataset("mimic-iii", mock=mock, pointer=private / "pointer.json", summary="a shard")
    held = {p for p in (pair.root / OWNER).rglob("pointer.json") if "private" in p.parts}
    assert held, "syft has its copy of the pointer, and of nothing else"
    with opened_files() as opened:
        submit(pair)
        pair.owner.poll()
        OwnerSession(pair.owner.settings).poll()
    assert any("store" in path.parts for path in opened), "this is how it would be seen"
    assert not held & opened
    assert not any(private in path.parents for path in opened)


_listening: list[set[Path]] = []


@pytest.fixture(scope="module")
def opened_files():
    """What this process opens meanwhile: Python tells a hook, which stays for as long as it runs."""

    def hook(event, arguments):
        if event == "open" and _listening and isinstance(arguments[0], str):
            _listening[-1].add(Path(arguments[0]))

    sys.addaudithook(hook)

    @contextlib.contextmanager
    def listen():
        _listening.append(set())
        try:
            yield _listening[-1]
        finally:
            _listening.pop()

    return listen
