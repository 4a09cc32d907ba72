"""What docs/protocol.md says of the store is what lies there: read by what the page says, without fedpriv's readers."""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import syft_crypto_python as syc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from syft_job.models import JobStatus

from fedpriv.errors import MissingBlobError
from fedpriv.study.messages import Progress
from tests.transport.conftest import OWNER, RESEARCHER, make_pair

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SECTION = PAGE.partition("## What lies on the store")[2].partition("\n## ")[0]
LARGE = bytes(range(256)) * 20_000  # 5.12 MB: two parts
WHERE = {
    "A": "[^/]+@[^/]+",
    "B": "[^/]+@[^/]+",
    "N": "[0-9]{12}",
    "P": "[0-9]{5}",
    "DIGEST": "[0-9a-f]{16}",
    "NAME": "[a-z0-9.-]+",
    "PREFIX": "[^/]+",
    "TAG": "[^/]+",
    "HASH": "[^/]+",
    "FILE": "[^/]+",
}


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A store after a job, its answer and blobs, of which the researcher found one changed; and who can open what."""
    pair = make_pair(tmp_path_factory.mktemp("pair"))
    owner, researcher, store = pair.owner, pair.researcher, pair.root / "store"
    (pair.root / "mock").mkdir()
    (pair.root / "mock" / "examples.jsonl").write_text("made up\n")
    (pair.root / "pointer.json").write_text("{}")
    owner.register_dataset("mimic", mock=pair.root / "mock", pointer=pair.root / "pointer.json", summary="a shard")
    owner.poll()
    researcher.submit(OWNER, "ticket-1", {"ticket.json": b'{"round": 1}'}, entrypoint="ticket.json")
    inbox = sorted((store / RESEARCHER).rglob("inbox/*"))
    proposed = [path.read_bytes() for path in inbox]
    owner.receive()
    owner.answer(owner.jobs()[0], JobStatus.DONE, {"result.json": b"{}"})
    owner.publish()
    researcher.poll()
    references = [owner.blobs.send(RESEARCHER, "small", b"a sum"), owner.blobs.send(RESEARCHER, "large", LARGE)]
    owner.blobs.show_progress(RESEARCHER, Progress(study="5" * 64, round=1, state="training"))
    whole = (store / OWNER / "to" / RESEARCHER / "blobs" / "small").read_bytes()
    (store / OWNER / "to" / RESEARCHER / "blobs" / "small").write_bytes(whole[:-1] + b"?")
    with pytest.raises(MissingBlobError):
        researcher.blobs.receive(OWNER, references[0], pair.root / "got")
    (store / OWNER / "to" / RESEARCHER / "blobs" / "small").write_bytes(whole)
    keys = {
        email: syc.SyftPrivateKeys.from_jwks(json.loads((pair.root / email / "keys.json").read_text())["keys_jwk"])
        for email in (OWNER, RESEARCHER)
    }
    bundles = {sender: bundle(store, sender, other) for sender, other in ((OWNER, RESEARCHER), (RESEARCHER, OWNER))}

    def opened(sender, recipient, data):
        envelope, keys_of_sender = syc.parse_envelope(data), syc.SyftPublicKeyBundle.from_did_document(bundles[sender])
        syc.verify_envelope_signature(envelope, keys_of_sender.identity_key_bytes)
        return syc.decrypt_message(recipient, keys[recipient], keys_of_sender, envelope)

    return store, opened, bundles, proposed


def bundle(store, sender, recipient):
    return json.loads((store / sender / "to" / recipient / "bundle.json").read_text())["public_encryption_bundle"]


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def is_signed(bundle, label, value, signature):
    """Check a signature of the identity key in a bundle; raises if it is none."""
    (method,) = bundle["verificationMethod"]
    raw = base64.urlsafe_b64decode(method["publicKeyJwk"]["x"] + "==")
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(signature, validate=True), label + canonical(value))
    return True


def unpacked(data, address):
    """Return what the first file of a message says, after comparing where it lies."""
    assert len(data) % 4096 == 0
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data.rstrip(b"\0") + bytes(8)))) as archive:
        said, where = (archive.extractfile(member).read() for member in archive.getmembers())
        assert archive.getnames() == ["proposed_file_changes.json", "fedpriv.json"]
    assert where == json.dumps(address).encode()
    return json.loads(said)


def test_every_object_is_one_of_the_page_and_all_of_the_page_s_are_there(left):
    named = {name for row in re.findall(r"^\| (`.*?`) \|", SECTION, re.M) for name in re.findall(r"`(.*?)`", row)}
    forms = {re.compile("/".join(WHERE.get(part) or form(part) for part in name.split("/"))) for name in named}
    lying = [path.relative_to(left[0]).as_posix() for path in left[0].rglob("*") if path.is_file()]
    assert [name for name in lying if not any(known.fullmatch(name) for known in forms)] == []
    unseen = {known.pattern for known in forms if not any(known.fullmatch(name) for name in lying)}
    others = ("identity", "fedpriv", "ledger", "inbox")  # of parties with a study, and what was taken and deleted
    assert all(any(word in pattern for word in others) for pattern in unseen), unseen


def form(part):
    return re.sub(r"[A-Z]+", lambda found: WHERE[found[0]], re.sub(r"\.", r"\\.", part))


def test_a_bundle_is_signed_with_its_generation(left):
    store, _, bundles, _ = left
    for sender, recipient in ((OWNER, RESEARCHER), (RESEARCHER, OWNER)):
        said = json.loads((store / sender / "to" / recipient / "bundle.json").read_text())
        digest = hashlib.sha256(canonical(bundles[sender])).hexdigest()
        word = {"bundle": digest, "email": sender, "generation": said["generation"]}
        assert is_signed(bundles[sender], b"fedpriv 1 bundle\n", word, said["signature"])


def test_messages_are_bound_to_their_places_and_hold_jobs_and_answers(left):
    store, opened, _, (proposed,) = left
    job = unpacked(
        opened(RESEARCHER, OWNER, proposed), {"sender": RESEARCHER, "recipient": OWNER, "box": "inbox", "number": 1}
    )
    assert job["sender_email"] == RESEARCHER
    files = {file["path_in_datasite"]: file for file in job["proposed_file_changes"]}
    root = f"app_data/job/inbox/{RESEARCHER}/v1/ticket-1"
    assert {f"{root}/config.yaml", f"{root}/run.sh", f"{root}/code/ticket.json"} == set(files)
    assert files[f"{root}/code/ticket.json"]["content"] == '{"round": 1}'
    answered = {}
    for path in sorted((store / OWNER).rglob("outbox/*")):
        where = {"sender": OWNER, "recipient": RESEARCHER, "box": "outbox", "number": int(path.name)}
        for file in unpacked(opened(OWNER, RESEARCHER, path.read_bytes()), where)["events"]:
            answered[file["path_in_datasite"]] = file["content"]
    root = f"app_data/job/review/{RESEARCHER}/v1/ticket-1"
    assert answered[f"{root}/outputs/result.json"] == "{}"
    assert f"{root}/state.yaml" in answered


def test_what_was_taken_is_signed(left):
    store, _, bundles, _ = left
    said = json.loads((store / OWNER / "to" / RESEARCHER / "taken.json").read_text())
    assert said["word"] == {
        "sender": RESEARCHER,
        "recipient": OWNER,
        "box": "inbox",
        "number": said["inbox"],
        "missing": [],
    }
    assert is_signed(bundles[OWNER], b"fedpriv 1 taken\n", said["word"], said["signature"])


def test_blobs_lie_whole_or_in_parts_with_an_index(left):
    store, opened, _, _ = left
    folder = store / OWNER / "to" / RESEARCHER
    assert opened(OWNER, RESEARCHER, (folder / "blobs" / "small").read_bytes()) == b"a sum"
    index = json.loads(opened(OWNER, RESEARCHER, (folder / "blobs" / "large").read_bytes()))
    digest = hashlib.sha256(LARGE).hexdigest()
    parts = [
        opened(OWNER, RESEARCHER, path.read_bytes())
        for path in sorted((folder / "parts" / f"large.{digest[:16]}").iterdir())
    ]
    assert b"".join(parts) == LARGE
    assert index == {
        "size_bytes": len(LARGE),
        "sha256": digest,
        "part_bytes": 4194304,
        "digests": [hashlib.sha256(part).hexdigest() for part in parts],
    }


def test_a_changed_blob_is_named_with_what_lay_there_and_a_status_tells_nothing_by_its_length(left):
    store, opened, _, _ = left
    (said,) = json.loads((store / RESEARCHER / "to" / OWNER / "changed.json").read_text()).values()
    whole = (store / OWNER / "to" / RESEARCHER / "blobs" / "small").read_bytes()
    assert said == {"blobs/small": hashlib.sha256(whole[:-1] + b"?").hexdigest()}
    status = opened(OWNER, RESEARCHER, (store / OWNER / "to" / RESEARCHER / "status").read_bytes())
    assert len(status) == 1024
    assert json.loads(status)["state"] == "training"
