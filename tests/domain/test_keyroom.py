"""The study key: made by one, taken from it alone, of a higher generation each time, and never used once retired."""

import stat

import pytest

from fedpriv.domain.keyroom import KeyRoom
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import FedprivError, RefusedError, SignatureError, UntrustedError
from fedpriv.protection import IdentityKeys
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from tests.domain.cohort import Relay
from tests.domain.conftest import approved

MAKER, MEMBER, OTHER = "ccu@x.org", "micu@x.org", "sicu@x.org"
TENSORS = {"a": 8}


@pytest.fixture
def rooms(tmp_path, ada):
    keys = {e: IdentityKeys.create(e, e.partition("@")[0], "11" * 32) for e in (MAKER, MEMBER, OTHER)}
    plan = Plan(
        researcher=MemberChoice(email=ada.email, fingerprint=ada.fingerprint),
        cohort=tuple(MemberChoice(email=e, fingerprint=k.fingerprint) for e, k in keys.items()),
        base_model=BaseModelChoice(name="tiny"),
    )
    request = CodeRequest.new(plan, "def train(context):\n    return None\n")
    relay = Relay()

    def room(email):
        decision = approved(request, email)
        return KeyRoom(
            folder=StudyFolder(tmp_path / email),
            keys=keys[email],
            stored=StoredRequest(request=request, researcher=ada.email, received_s=0.0, decision=decision),
            member=email,
            ledger=Ledger(tmp_path / f"{email}.jsonl", keys[email].sign_bytes, lambda data, signature: True),
            blobs=relay,
        )

    return {email: room(email) for email in keys}, {e: k.identity for e, k in keys.items()}


def kinds(room):
    return [entry.kind for entry in room.ledger.entries()]


def test_the_key_reaches_every_member_and_is_made_once(rooms):
    room, identities = rooms
    made = room[MAKER].make(identities, TENSORS, generation=1)
    again = room[MAKER].make(identities, TENSORS, generation=1)
    assert made["public_context_blob"] == again["public_context_blob"]
    for email in (MEMBER, OTHER):
        room[email].take(again["key_blobs"][email], identities)
        room[email].take(again["key_blobs"][email], identities)
        assert room[email].load().to_bytes() == room[MAKER].load().to_bytes()
        assert stat.S_IMODE(room[email].folder.key_path.stat().st_mode) == 0o600
        assert kinds(room[email]) == ["key.received"]
    assert kinds(room[MAKER]) == ["key.made"]
    room[MAKER].forget(identities)
    assert room[MAKER].blobs.data == {}


def test_only_the_plans_key_maker_makes_keys_each_in_its_turn(rooms):
    room, identities = rooms
    with pytest.raises(RefusedError, match="not the key maker"):
        room[MEMBER].make(identities, TENSORS, generation=1)
    for generation in (2, 7):
        with pytest.raises(RefusedError, match="not the next one"):
            room[MAKER].make(identities, TENSORS, generation=generation)
    room[MAKER].make(identities, TENSORS, generation=1)
    first = room[MAKER].load()
    room[MAKER].make(identities, TENSORS, generation=2)
    assert room[MAKER].load().key_id != first.key_id
    with pytest.raises(RefusedError, match="not the next one"):
        room[MAKER].make(identities, TENSORS, generation=1)
    assert kinds(room[MAKER]) == ["key.made", "key.retired", "key.made"]


def test_a_retired_key_is_kept_and_never_comes_back(rooms):
    room, identities = rooms
    first = room[MAKER].make(identities, TENSORS, generation=1)["key_blobs"][MEMBER]
    room[MEMBER].take(first, identities)
    key = room[MEMBER].load()
    room[MEMBER].retire()
    room[MEMBER].retire()
    assert kinds(room[MEMBER]) == ["key.received", "key.retired"]
    assert room[MEMBER].retired_key() == key.key_id
    kept = room[MEMBER].folder.retired_key_path(1)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with pytest.raises(RefusedError, match="retired the study's key"):
        room[MEMBER].load()
    with pytest.raises(UntrustedError, match="held before"):
        room[MEMBER].take(first, identities)
    second = room[MAKER].make(identities, TENSORS, generation=2)["key_blobs"][MEMBER]
    room[MEMBER].take(second, identities)
    assert room[MEMBER].load().generation == 2
    assert room[MEMBER].retired_key() == ""
    assert kept.exists()


def test_a_member_that_saw_nothing_wrong_takes_the_new_key_too(rooms):
    room, identities = rooms
    first = room[MAKER].make(identities, TENSORS, generation=1)["key_blobs"][OTHER]
    room[OTHER].take(first, identities)
    room[OTHER].take(room[MAKER].make(identities, TENSORS, generation=2)["key_blobs"][OTHER], identities)
    assert room[OTHER].load().generation == 2
    assert kinds(room[OTHER]) == ["key.received", "key.retired", "key.received"]
    with pytest.raises(UntrustedError, match="held before"):
        room[OTHER].take(first, identities)


def test_a_key_for_somebody_else_or_from_somebody_else_is_not_taken(rooms):
    room, identities = rooms
    blobs = room[MAKER].make(identities, TENSORS, generation=1)["key_blobs"]
    with pytest.raises(SignatureError):
        room[MEMBER].take(blobs[OTHER], identities)
    stranger = IdentityKeys.create(MAKER, "ccu", "11" * 32).identity
    with pytest.raises(SignatureError):
        room[MEMBER].take(blobs[MEMBER], identities | {MAKER: stranger})
    data = bytearray(room[MAKER].blobs.data[blobs[MEMBER].name])
    data[-1] ^= 1
    reference = room[MAKER].blobs.send("", "changed", bytes(data))
    with pytest.raises(FedprivError):
        room[MEMBER].take(reference, identities)
    assert not room[MEMBER].folder.key_path.exists()


def test_without_a_key_there_is_nothing_to_retire(rooms):
    room, _ = rooms
    room[MEMBER].retire()
    assert kinds(room[MEMBER]) == []
    assert room[MEMBER].retired_key() == ""
    with pytest.raises(RefusedError, match="does not hold the study's key yet"):
        room[MEMBER].load()
