"""The copies of a study key are fetched for members alone: who makes the key cannot fill the researcher's disk."""

import asyncio
from types import SimpleNamespace

import pytest

from fedpriv.errors import UntrustedError
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.study import BlobRef, Result

MAKER, MEMBER, STRANGER = "micu@x.org", "sicu@x.org", "zzz@x.org"


def blob(name):
    return BlobRef(name=name, size_bytes=8, sha256="0" * 64)


def made(*members):
    return Result(
        study="1" * 64,
        ticket_sha256="2" * 64,
        kind="prepare",
        round=0,
        member=MAKER,
        status="done",
        key_blobs={member: blob(f"key-{member.partition('@')[0]}") for member in members},
        public_context_blob=blob("public"),
    )


@pytest.fixture
def relay(tmp_path):
    """The relay of a study of two, and which blobs it fetches."""
    fetched = []

    async def fetch(email, blob, path, *, max_bytes):
        fetched.append(blob.name)

    kept = []
    folder = SimpleNamespace(blob_path=lambda blob: tmp_path / blob.name, keys=lambda: None, keep_keys=kept.append)
    plan = SimpleNamespace(key_maker=MAKER, emails=(MAKER, MEMBER))
    courier = SimpleNamespace(plan=plan, fetch=fetch)
    return SimpleNamespace(relay=KeyRelay(folder, courier, lambda event: None), fetched=fetched, kept=kept)


def test_the_copies_of_members_are_fetched_and_kept(relay):
    asyncio.run(relay.relay.take(made(MEMBER), generation=1, from_round=1))
    assert sorted(relay.fetched) == ["key-sicu", "public"]
    assert len(relay.kept) == 1


def test_a_copy_for_somebody_else_is_refused_before_anything_is_fetched(relay):
    with pytest.raises(UntrustedError, match="who is no member"):
        asyncio.run(relay.relay.take(made(MEMBER, STRANGER), generation=1, from_round=1))
    assert relay.fetched == relay.kept == []
