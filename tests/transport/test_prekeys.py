"""Prekeys are renewed: what is under way still opens, what a store kept does not open later, none comes back."""

import base64
import json
import shutil
import stat
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syft.sync.peers.peer import Peer
from syft.sync.peers.peer_store import PeerStore
from syft_job.models import JobStatus

from fedpriv.errors import SignatureError
from fedpriv.transport import OwnerSession, create_transport_keys, prekeys
from fedpriv.transport import session as session_module
from fedpriv.transport.prekeys import RenewedKeys, checked_bundle
from tests.transport.conftest import OWNER, RESEARCHER, make_pair


@pytest.fixture
def two(tmp_path):
    """The keys of two parties that know each other's bundles; and how one of them is told of a renewal."""
    found = {}
    for email in (OWNER, RESEARCHER):
        create_transport_keys(email, tmp_path / email / "keys.json")
        found[email] = RenewedKeys.open(email, tmp_path / email / "keys.json")
    for email, other in ((OWNER, RESEARCHER), (RESEARCHER, OWNER)):
        found[email].set_peer(Peer(email=other, public_encryption_bundle=found[other].get_public_bundle()))
    return found[OWNER], found[RESEARCHER]


def later(monkeypatch, days):
    then = time.time() + days * 86_400
    monkeypatch.setattr(prekeys.time, "time", lambda: then)


def tell(owner, researcher):
    researcher.set_peer_bundle(OWNER, owner.bundle_message()["public_encryption_bundle"])


def test_after_a_renewal_new_and_old_messages_open_until_their_time_is_over(two, monkeypatch):
    owner, researcher = two
    under_way = researcher.encrypt(OWNER, b"before")
    owner.renew()
    assert owner.decrypt(RESEARCHER, under_way) == b"before"
    tell(owner, researcher)
    new = researcher.encrypt(OWNER, b"after")
    assert owner.decrypt(RESEARCHER, new) == b"after"
    later(monkeypatch, prekeys.KEEP_DAYS + 1)
    owner.refresh()
    with pytest.raises(Exception, match=r"ignature|decrypt"):
        owner.decrypt(RESEARCHER, under_way)
    assert owner.decrypt(RESEARCHER, new) == b"after"


def test_what_a_store_kept_does_not_open_with_the_keys_that_lie_on_the_disk_later(two, tmp_path, monkeypatch):
    owner, researcher = two
    kept = researcher.encrypt(OWNER, b"secret")
    owner.renew()
    later(monkeypatch, prekeys.KEEP_DAYS + 1)
    owner.refresh()
    thief = PeerStore.load_keys(tmp_path / OWNER / "keys.json")
    thief.set_peer(Peer(email=RESEARCHER, public_encryption_bundle=researcher.get_public_bundle()))
    with pytest.raises(Exception, match=r"ignature|decrypt"):
        thief.decrypt(RESEARCHER, kept)
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / OWNER).iterdir())
    old = json.loads((tmp_path / OWNER / "keys-renewals.json").read_text())
    assert old["previous"] == []
    assert on_disk.count(b'"signed-prekey"') == 1


def test_an_old_prekey_is_renewed_by_itself_and_the_identity_stays(two, monkeypatch):
    owner, _ = two
    pin, first = owner.public_key.identity_key_bytes, owner.get_public_bundle()
    owner.refresh()
    assert owner.get_public_bundle() == first
    later(monkeypatch, prekeys.ROTATE_DAYS + 1)
    owner.refresh()
    assert owner.get_public_bundle() != first
    assert owner.public_key.identity_key_bytes == pin


def test_a_clock_that_was_far_ahead_keeps_no_prekey_for_as_long(two, monkeypatch):
    owner, researcher = two
    with monkeypatch.context() as patch:
        later(patch, 20_000)
        owner.refresh()
    ahead = owner.get_public_bundle()
    tell(owner, researcher)
    under_way = researcher.encrypt(OWNER, b"x")
    owner.refresh()
    assert owner.get_public_bundle() != ahead
    assert owner.decrypt(RESEARCHER, under_way) == b"x"
    later(monkeypatch, prekeys.KEEP_DAYS + 1)
    owner.refresh()
    with pytest.raises(Exception, match=r"ignature|decrypt"):
        owner.decrypt(RESEARCHER, under_way)


def test_another_process_takes_a_renewal_and_files_are_private(two, tmp_path):
    owner, _ = two
    service = RenewedKeys.open(OWNER, tmp_path / OWNER / "keys.json")
    owner.renew()
    service.refresh()
    assert service.bundle_message() == owner.bundle_message()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / OWNER).iterdir()} == {0o600}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_kill_in_a_renewal_leaves_keys_that_open_everything(two, tmp_path, monkeypatch, failing):
    owner, researcher = two
    under_way = researcher.encrypt(OWNER, b"before")
    writes, write = [], prekeys.write_json

    def killed(path, value):
        writes.append(path)
        if len(writes) == failing:
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(prekeys, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        owner.renew()
    monkeypatch.setattr(prekeys, "write_json", write)
    again = RenewedKeys.open(OWNER, tmp_path / OWNER / "keys.json")
    again.set_peer(Peer(email=RESEARCHER, public_encryption_bundle=researcher.get_public_bundle()))
    assert again.decrypt(RESEARCHER, under_way) == b"before"
    again.renew()
    tell(again, researcher)
    assert again.decrypt(RESEARCHER, researcher.encrypt(OWNER, b"after")) == b"after"
    assert again.decrypt(RESEARCHER, under_way) == b"before"


def test_a_restored_backup_gets_past_what_peers_have_seen(two, tmp_path):
    owner, _ = two
    backup = tmp_path / "backup"
    shutil.copytree(tmp_path / OWNER, backup)
    owner.renew()
    seen = owner.generation
    time.sleep(1.1)
    restored = RenewedKeys.open(OWNER, backup / "keys.json")
    restored.renew()
    assert restored.generation > seen


@pytest.mark.parametrize("change", ["generation", "signature", "no signature", "bundle", "true", "list"])
def test_a_changed_bundle_message_is_refused(two, change):
    owner, _ = two
    pin = owner.public_key.identity_key_bytes.hex()
    old = owner.get_public_bundle()
    owner.renew()
    message = owner.bundle_message()
    assert checked_bundle(message, email=OWNER, pin=pin, newest=0)[1] == owner.generation
    match change:
        case "generation":
            message["generation"] += 1
        case "signature":
            message["signature"] = "AAAA" + message["signature"][4:]
        case "no signature":
            del message["signature"]
        case "bundle":
            message["public_encryption_bundle"] = old
        case "true":
            message["generation"] = True
        case "list":
            message = [message]
    with pytest.raises(SignatureError):
        checked_bundle(message, email=OWNER, pin=pin, newest=0)


def small_order(session, other, kid, point):
    """Sign a key of a peer that makes no secret with any other one, as its owner can, and leave it for ``other``."""
    peers, jwks = session.client.peer_manager.peer_store, json.loads(session.settings.keys_path.read_text())
    identity = jwks["keys_jwk"]["identity_key"]["d"]
    signing = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(identity + "=="))
    message = peers.bundle_message()
    for key in (found["publicKeyJwk"] for found in message["public_encryption_bundle"]["keyAgreement"]):
        if key["kid"] == kid:
            for name, data in (("x", point), ("signature", signing.sign(point))):
                key[name] = base64.urlsafe_b64encode(data).decode().rstrip("=")
    session.connection.write_encryption_bundle(other, json.dumps(message))


@pytest.mark.parametrize("kid", ["identity-dh", "signed-prekey"])
@pytest.mark.parametrize(
    "point",
    ["00" * 32, "01" + "00" * 31, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"],
    ids=["zero", "one", "order 8"],
)
def test_keys_that_no_envelope_can_be_made_with_are_refused_and_end_nobody(eager, kid, point):
    exchange(eager, "job-1")
    for session, me, other in ((eager.owner, OWNER, RESEARCHER), (eager.researcher, RESEARCHER, OWNER)):
        small_order(session, other, kid, bytes.fromhex(point))
        message = json.loads((eager.root / "store" / me / "to" / other / "bundle.json").read_text())
        with pytest.raises(SignatureError, match="cannot be read"):
            checked_bundle(message, email=me, pin=session._keys.public_key.identity_key_bytes.hex(), newest=0)
    eager.owner.poll()
    eager.owner.answer(eager.owner.jobs()[0], JobStatus.DONE, {"result.json": b"{}"})
    eager.owner.poll()
    eager.researcher.poll()
    assert eager.researcher.output(OWNER, "job-1", "result.json") == b"{}"
    assert [reason for reason in eager.refusals if "cannot be read" in reason], "told"


@pytest.fixture
def eager(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "_TEND_SECONDS", 0.0)
    return make_pair(tmp_path)


def exchange(pair, name):
    pair.researcher.submit(OWNER, name, pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    assert name in [job.job_name for job in pair.owner.jobs()]


def test_sessions_renew_and_peers_follow_without_a_restart(eager):
    exchange(eager, "job-1")
    bundle = eager.researcher._keys.get_cached_peer(OWNER).public_encryption_bundle
    eager.owner._keys.renew()
    eager.owner.poll()
    eager.researcher.poll()
    assert eager.researcher._keys.get_cached_peer(OWNER).public_encryption_bundle != bundle
    exchange(eager, "job-2")
    assert eager.refusals == []
    again = OwnerSession(eager.owner.settings)
    eager.owner = again
    exchange(eager, "job-3")


def test_a_store_that_shows_an_older_bundle_is_told_and_the_newer_one_used_on(eager):
    path = eager.root / "store" / OWNER / "to" / RESEARCHER / "bundle.json"
    first = path.read_bytes()
    eager.owner._keys.renew()
    eager.owner.poll()
    eager.researcher.poll()
    newest = eager.researcher._keys.get_cached_peer(OWNER).public_encryption_bundle
    path.write_bytes(first)
    eager.researcher.poll()
    eager.researcher.poll()
    ((peer, why),) = eager.researcher.refused()
    assert peer == OWNER
    assert "shows an older encryption key" in why, "told once"
    assert eager.researcher._keys.get_cached_peer(OWNER).public_encryption_bundle == newest


def test_a_peer_that_is_no_longer_pinned_is_neither_read_nor_written_to(eager):
    exchange(eager, "job-1")
    job = eager.owner.jobs()[0]
    without = OwnerSession(replace(eager.owner.settings, pins={}))
    from syft_job.models import JobStatus

    without.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    eager.researcher.submit(OWNER, "job-2", eager.code(train="x = 2\n"), entrypoint="train.py")
    without.poll()
    eager.researcher.poll()
    assert without.jobs() == []
    assert eager.researcher.output(OWNER, "job-1", "result.json") is None
    assert not (eager.root / OWNER / "datasite" / OWNER / f"app_data/job/inbox/{RESEARCHER}/v1/job-2").exists()
