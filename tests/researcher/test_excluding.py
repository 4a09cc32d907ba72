"""Excluding a domain: a small file, which a running study notices; never so many that nobody could be hidden."""

import pytest

from fedpriv.errors import InputError, StudyError
from fedpriv.protection import IdentityKeys
from fedpriv.researcher import Study
from fedpriv.researcher.records import KeyState, SumMembers
from fedpriv.study import BlobRef, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice

EMAILS = ("ccu@x.org", "micu@x.org", "sicu@x.org")
BLOB = BlobRef(name="public", size_bytes=3, sha256="a" * 64)
KEYS = KeyState(key_id="a" * 64, key_blobs={}, public=BLOB)


@pytest.fixture
def submitted(researcher):
    keys = {email: IdentityKeys.create(email, email.partition("@")[0], "11" * 32) for email in EMAILS}
    plan = Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint=researcher.keys.fingerprint),
        cohort=tuple(MemberChoice(email=e, fingerprint=k.fingerprint) for e, k in keys.items()),
        base_model=BaseModelChoice(name="tiny"),
    )
    study = Study.create(researcher, "three", plan, recipe="def train(context):\n    return None\n")
    study.folder.freeze(study.folder.draft())
    return study


def test_it_is_noted_once_with_its_first_reason(submitted):
    assert submitted.exclude("sicu@x.org", "its power\nis off") == ""
    assert submitted.exclude("sicu@x.org", "another") == ""
    assert submitted.folder.excluded("sicu@x.org").reason == "its power is off"
    assert submitted.folder.active(EMAILS) == EMAILS[:2]
    assert submitted.status()["excluded"] == {"sicu@x.org": "its power is off"}


def test_two_domains_remain(submitted):
    submitted.folder.keep_keys(KEYS)
    submitted.exclude("sicu@x.org")
    for email in EMAILS[:2]:
        with pytest.raises(StudyError, match="fewer than two domains would remain"):
            submitted.exclude(email)
    assert submitted.folder.active(EMAILS) == EMAILS[:2]


def test_a_stranger_is_named(submitted):
    with pytest.raises(InputError, match=r"mallory@x\.org is not in the cohort.*Next: choose one of") as caught:
        submitted.exclude("mallory@x.org")
    assert caught.value.exit_code == 2


def test_the_key_maker_stays_until_its_key_is_handed_out(submitted):
    with pytest.raises(StudyError, match="makes the study's key"):
        submitted.exclude("ccu@x.org")
    submitted.folder.keep_keys(KEYS.model_copy(update={"redo_round": 1, "retired_by": ("sicu@x.org",)}))
    with pytest.raises(StudyError, match="makes the study's key"):
        submitted.exclude("ccu@x.org")
    submitted.folder.keep_keys(KEYS)
    assert submitted.exclude("ccu@x.org") == ""


def test_a_round_that_was_being_confirmed_waits_and_says_so(submitted):
    submitted.folder.keep_keys(KEYS)
    submitted.folder.keep_sum_members(1, SumMembers(attempt=1, members=EMAILS))
    assert "Round 1 waits for sicu@x.org all the same" in submitted.exclude("sicu@x.org")
    submitted.folder.keep_sum_members(1, SumMembers(attempt=1, members=EMAILS[:2]))
    assert submitted.exclude("sicu@x.org") == ""
