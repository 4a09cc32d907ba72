"""Messages that were rightly signed and sealed and hold what no honest peer sends: refused once, and none stops us."""

import gzip
import json
import tarfile

import pytest
from syft_job.models import JobStatus

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.transport import OwnerSession, ResearcherSession, create_transport_keys
from fedpriv.transport import session as sessions
from fedpriv.transport.messages import Address, pack_message, padded, unpack_message
from tests.transport.conftest import OWNER, RESEARCHER, settings

JOB = f"app_data/job/inbox/{RESEARCHER}/v1/job-1"
REVIEW = f"app_data/job/review/{RESEARCHER}/v1/job-1"
DEEP = "/".join(["a" * 119] * 60)


def proposal(path, content="x"):
    return {"path_in_datasite": path, "content": content, "datasite_email": OWNER}


def event(path, content="x"):
    return {"path_in_datasite": path, "content": content, "datasite_email": OWNER}


def leave(session, recipient, box, message):
    address = session.connection.boxes.next_address(recipient, box)
    sealed = session.client.peer_manager.peer_store.encrypt(
        recipient, pack_message(json.dumps(message).encode(), address)
    )
    session.connection.boxes.put_message(address, sealed)


@pytest.mark.parametrize(
    "changes",
    [
        ["x"],
        [proposal(f"{JOB}/code/a.py", ["x"])],
        [proposal(f"{JOB}/code/a.py", 10**13)],
        [proposal(f"{JOB}/code/a.py", "=") | {"content_type": "binary"}],
        [proposal(f"{JOB}/code"), proposal(f"{JOB}/code/a.py")],
        [proposal(f"{JOB}/code/a.py"), proposal(f"{JOB}/code")],
        [proposal(f"{JOB}/code/{DEEP}")],
        [proposal(f"{JOB}/code/a.py")] * 65,
    ],
    ids=["text", "list", "number", "not base64", "file then folder", "folder then file", "deep", "many"],
)
def test_a_data_owner_refuses_it_once_and_goes_on(pair, changes):
    leave(pair.researcher, OWNER, "inbox", {"sender_email": RESEARCHER, "proposed_file_changes": changes})
    pair.researcher.submit(OWNER, "job-2", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    assert len(pair.refusals) == 1
    assert [job.job_name for job in pair.owner.jobs()] == ["job-2"]
    again = OwnerSession(pair.owner.settings)
    again.poll()
    assert len(pair.refusals) == 1, "nor does it come again after a restart"


@pytest.mark.parametrize(
    "events",
    [
        ["x"],
        [event(f"{REVIEW}/a", 7)],
        [event(f"{REVIEW}/a"), event(f"{REVIEW}/a/b")],
        [event(f"{REVIEW}/{DEEP}")],
        [event(f"{REVIEW}/held/below")],
        [event(f"{REVIEW}/folder")],
    ],
    ids=["text", "number", "file and folder", "deep", "below a file", "in place of a folder"],
)
def test_a_researcher_refuses_it_once_and_goes_on(pair, events):
    for name in ("held", "folder/inside"):
        leave(pair.owner, RESEARCHER, "outbox", {"events": [event(f"{REVIEW}/{name}")]})
    leave(pair.owner, RESEARCHER, "outbox", {"events": events})
    leave(pair.owner, RESEARCHER, "outbox", {"events": [event(f"{REVIEW}/last", "y")]})
    pair.researcher.poll()
    pair.researcher.poll()
    ((peer, _),) = pair.researcher.refused()
    assert peer == OWNER
    root = pair.researcher.client.syftbox_folder / OWNER / REVIEW
    assert {path.name for path in root.iterdir()} == {"held", "folder", "last"}


def header(name, size):
    """Return a tar header with a size that may be negative, as base 256 says it."""
    block = bytearray(tarfile.TarInfo(name).tobuf())
    block[124:136] = b"\xff" + (size & (2**88 - 1)).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [-512, 2**40])
def test_a_size_that_no_file_has_is_refused_at_once(size):
    """Python's own reader of tar goes round for ever on the first."""
    address = Address(sender=RESEARCHER, recipient=OWNER, box="inbox", number=1)
    bomb = padded(gzip.compress(header("fedpriv.json", 0) + header("y", size) + bytes(2048)))
    with pytest.raises(UntrustedError, match="no file where one must be"):
        unpack_message(bomb, address)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_keys_in_another_encoding_are_refused_and_keep_nobody_waiting(pair, monkeypatch, encoding):
    """Whoever runs the store can write so without any key."""
    monkeypatch.setattr(sessions, "_TEND_SECONDS", 0.0)
    for sender, recipient in ((RESEARCHER, OWNER), (OWNER, RESEARCHER)):
        path = pair.root / "store" / sender / "to" / recipient / "bundle.json"
        path.write_bytes(path.read_text().encode(encoding))
    pair.owner.poll()
    pair.researcher.poll()
    assert any("not JSON" in reason for reason in pair.refusals)
    assert pair.researcher.refused()


def test_a_generation_that_no_journal_can_hold_is_refused(pair, monkeypatch):
    monkeypatch.setattr(sessions, "_TEND_SECONDS", 0.0)
    keys = pair.researcher._keys
    keys.renew()
    keys._write(2**63, 0.0, keys._previous)
    path = pair.root / "store" / RESEARCHER / "to" / OWNER / "bundle.json"
    path.write_text(json.dumps(keys.bundle_message()))
    pair.owner.poll()
    assert any("no number of keys" in reason for reason in pair.refusals)


def test_mock_data_in_somebody_else_s_envelope_are_refused(pair, monkeypatch):
    syncer = pair.researcher._syncer
    monkeypatch.setattr(
        type(syncer.datasite_watcher_cache),
        "sync_down_collections_parallel",
        lambda cache, peer, executor, download: download("any"),
    )
    foreign = pair.researcher.client.peer_manager.peer_store.encrypt(OWNER, b"x")  # signed by the researcher itself
    monkeypatch.setattr(type(syncer._connection), "watcher_download_collection_file", lambda store, key: foreign)
    with pytest.raises(SignatureError, match="not from micu@x"):
        syncer.sync_datasets(OWNER)


# -- what a domain says of a job -------------------------------------------------------------------------------------

STATE = f"{REVIEW}/state.yaml"


def bomb(levels):
    """A few hundred bytes, of which each level doubles what they stand for."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels))]
    return "\n".join([*lines, f"status: *a{levels - 1}"]) + "\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        bomb(40),
        "status: rejected\nx: [" + "a," * 100_000 + "a]\n",
        "status: [rejected]\nstatus: rejected\n",
        "[]",
        "status: !!bool x",
        "\u2028",
    ],
    ids=["doubling", "long", "twice", "list", "tag", "separator"],
)
def test_a_state_that_is_none_is_refused_at_once(pair, text):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    leave(pair.owner, RESEARCHER, "outbox", {"events": [event(STATE, text)]})
    pair.researcher.poll()
    with pytest.raises(UntrustedError, match="job state that cannot be read"):
        pair.researcher.refusal(OWNER, "job-1")


def test_why_a_job_was_rejected_is_told_in_some_words(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    pair.owner.answer(job, JobStatus.REJECTED, {}, reason="the cohort is too small: 2 < 3")
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.refusal(OWNER, "job-1") == "the cohort is too small: 2 < 3"
    leave(
        pair.owner, RESEARCHER, "outbox", {"events": [event(STATE, "status: rejected\nreview_reason: " + "x" * 9000)]}
    )
    pair.researcher.poll()
    assert len(pair.researcher.refusal(OWNER, "job-1")) == 2000


def test_a_folder_in_an_answer_s_place_is_refused(pair):
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    leave(pair.owner, RESEARCHER, "outbox", {"events": [event(STATE.replace("state.yaml", "outputs/result.json/x"))]})
    pair.researcher.poll()
    with pytest.raises(UntrustedError, match="a folder for result"):
        pair.researcher.output(OWNER, "job-1", "result.json")


@pytest.mark.parametrize("said", [b"", b"{", b"[" * 100_000, b"{}", b"null", b"\xff", bytes(2**21)], ids=len)
def test_who_asks_to_be_a_peer_and_says_nonsense_of_its_version_becomes_one(tmp_path, said):
    keys = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in (OWNER, RESEARCHER)}
    owner = OwnerSession(settings(tmp_path, OWNER, {RESEARCHER: keys[RESEARCHER]}))
    researcher = ResearcherSession(settings(tmp_path, RESEARCHER, {OWNER: keys[OWNER]}))
    for email in (OWNER, RESEARCHER):
        (tmp_path / "store" / email / "version.json").write_bytes(said)
    researcher.connect(OWNER)
    owner.poll()
    assert owner.is_connected(RESEARCHER)
    assert researcher.connect(OWNER)


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_keys_that_are_none_keep_nobody_else_from_becoming_a_peer(tmp_path, is_asked_first):
    domains, researchers, told = (OWNER, "evil@x.org"), (RESEARCHER, "eve@y.org"), []
    keys = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in domains + researchers}
    given = settings(
        tmp_path, OWNER, {email: keys[email] for email in researchers}, lambda *refusal: told.append(refusal)
    )
    owner = OwnerSession(given)
    theirs = settings(tmp_path, RESEARCHER, {email: keys[email] for email in domains})
    researcher = ResearcherSession(theirs)
    ResearcherSession(settings(tmp_path, "eve@y.org", {OWNER: keys[OWNER]})).connect(OWNER)
    if is_asked_first:  # while their keys are not there
        (tmp_path / "store" / "eve@y.org" / "to" / OWNER / "bundle.json").unlink()
        owner.poll()
        assert not researcher.connect("evil@x.org")
    for evil, other in (("eve@y.org", OWNER), ("evil@x.org", RESEARCHER)):
        place = tmp_path / "store" / evil / "to" / other / "bundle.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"{")
    with pytest.raises(UntrustedError, match="encryption bundle of evil"):
        researcher.connect("evil@x.org")
    researcher.connect(OWNER)
    owner.poll()
    assert researcher.connect(OWNER)
    assert owner.is_connected(RESEARCHER)
    assert {email for email, _ in told} == {"eve@y.org"}
    OwnerSession(given).poll()
    assert ResearcherSession(theirs).connect(OWNER)
