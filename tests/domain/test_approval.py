import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.domain import ResourcesChoice
from fedpriv.domain.approval import limits_in_words, limits_now, opens_in
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import RefusedError, RevokedError
from fedpriv.files import write_atomic
from fedpriv.study import Limits, RequestDecision
from fedpriv.study.messages import Hours
from fedpriv.study.plan import BaseModelChoice, MemberChoice, Plan

STUDY = "ab" * 32


def limits(**values):
    return Limits(**({"rounds": 3, "metrics": ("examples",), "minimum_cohort": 2} | values))


def decision(verdict, **values):
    return RequestDecision(study=STUDY, member="micu@x.org", decision=verdict, **values)


def local(text):
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


def test_an_approval_holds_until_its_last_second():
    given_limits = limits(expires_s=1000.0)
    approved = decision("approved", limits=given_limits)
    assert limits_now(approved, now_s=999.9) == given_limits
    with pytest.raises(RevokedError, match="The approval ended on"):
        limits_now(approved, now_s=1000.0)


def test_a_withdrawn_approval_says_why():
    with pytest.raises(RevokedError, match="withdrew the approval: the ethics board called"):
        limits_now(decision("revoked", reason="the ethics board called"))


@pytest.mark.parametrize("verdict", ["pending", "rejected"])
def test_what_was_never_approved_is_refused(verdict):
    with pytest.raises(RefusedError, match=f"is {verdict} at this domain") as caught:
        limits_now(decision(verdict))
    assert not isinstance(caught.value, RevokedError)


@pytest.mark.parametrize("verdict", ["pending", "rejected", "revoked"])
def test_only_an_approval_has_limits(verdict):
    with pytest.raises(ValueError, match="an approval has limits"):
        decision(verdict, limits=limits())
    with pytest.raises(ValueError, match="an approval has limits"):
        decision("approved")


@pytest.mark.parametrize(
    ("hours", "clock", "minutes"),
    [
        ("19:00-07:00", "19:00", 0),
        ("19:00-07:00", "23:59", 0),
        ("19:00-07:00", "06:59", 0),
        ("19:00-07:00", "07:00", 720),
        ("19:00-07:00", "18:59", 1),
        ("08:30-17:00", "08:29", 1),
        ("08:30-17:00", "08:30", 0),
        ("08:30-17:00", "17:00", 930),
        (None, "12:00", 0),
    ],
)
def test_hours_of_the_day(hours, clock, minutes):
    assert opens_in(limits(hours=hours), now_s=local(f"2026-11-20 {clock}")) == minutes * 60


@given(
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    now_s=st.floats(local("2026-01-01 00:00"), local("2026-12-31 00:00")),
)
def test_at_the_time_it_opens_it_is_open(start, length, now_s):
    clock = lambda minute: f"{minute // 60 % 24:02}:{minute % 60:02}"  # noqa: E731
    given_limits = limits(hours=f"{clock(start)}-{clock(start + length)}")
    wait = opens_in(given_limits, now_s=now_s)
    assert 0 <= wait <= 25 * 3600
    assert opens_in(given_limits, now_s=now_s + wait + 0.001) == 0.0


@pytest.mark.parametrize("hours", ["7-19", "24:00-07:00", "07:60-08:00", "07:00-07:00", "07:00", "07:00-08:00 "])
def test_other_hours_are_refused(hours):
    with pytest.raises(ValueError, match="hours"):
        limits(hours=hours)
    assert Hours


def test_limits_in_words_name_every_limit():
    words = "; ".join(limits_in_words(limits(epsilon=2.5, hours="19:00-07:00", expires_s=local("2026-12-01 08:00"))))
    for part in ("3 rounds", "2 domains", "examples", "epsilon 2.5", "19:00 and 07:00", "2026-12-01 08:00", "may not"):
        assert part in words


def test_the_seconds_of_a_round_are_told():
    assert "a local round stops after 60 seconds, with the work so far" in list(limits_in_words(limits(seconds=60)))
    assert not any("seconds" in phrase for phrase in limits_in_words(limits()))


@pytest.mark.parametrize(("allowed", "counts"), [(None, 900), (60, 60), (5000, 900)])
def test_the_smaller_of_plan_and_approval_ends_a_round(tmp_path, monkeypatch, allowed, counts):
    plan = Plan(
        researcher=MemberChoice(email="c@x.org", fingerprint="c" * 64),
        cohort=tuple(MemberChoice(email=f"{n}@x.org", fingerprint=n * 64) for n in "ab"),
        base_model=BaseModelChoice(name="tiny"),
    )
    folder, given = StudyFolder(tmp_path / "study"), []
    write_atomic(folder.adapter(0), b"adapter")
    training = LocalTraining(
        plan=plan,
        folder=folder,
        recipe=tmp_path / "train.py",
        prepared=SimpleNamespace(train=tmp_path / "train.jsonl", heldout=tmp_path / "heldout.jsonl"),
        model=SimpleNamespace(folder=tmp_path),
        resources=ResourcesChoice(),
    )
    monkeypatch.setattr(training, "_run", lambda job, seconds, *_: given.append((job["training"], seconds)))
    training.run("train", 1, 0, folder.output("x"), lambda step, steps: None, seconds=allowed)
    ((told, seconds),) = given
    assert told["max_seconds"] == seconds == counts
    assert told["steps"] == plan.training.steps
