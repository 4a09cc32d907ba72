import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.researcher.events import RoundFinished
from fedpriv.researcher.trackers.rows import MARK, parameters, rows, short_names
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from tests.researcher.event_strategies import any_of, events

LABELS = {"micu@x.org": "micu", "sicu@y.org": "sicu"}
EMAIL = st.from_regex(r"\A[a-z0-9][a-z0-9._+-]{0,12}@[a-z0-9][a-z0-9.-]{0,12}\Z")
NAME = re.compile(r"[A-Za-z0-9_./-]+")


def test_a_round_is_one_row_with_what_each_domain_said(story):
    story.trained(0, kind="prepare", loss=7.0)
    story.round(1)
    story.trained(1, kind="confirm", loss=99.0)
    finished = story.finish()
    first, last = rows(story.history.events(), LABELS)
    assert (first.step, first.final) == (1, False)
    assert first.values == {
        "attempt": 1.0,
        "loss/train": 2.0,
        "loss/heldout": 3.0,
        "weight/micu": 0.25,
        "weight/sicu": 0.75,
        "bytes/up": 1000.0,
        "bytes/down": 2000.0,
        "parameters": 500.0,
        "seconds/train": 1.5,
        "seconds/wall": 9.0,
        "domain/micu/heldout_loss": 3.0,
        "domain/micu/examples": 10.0,
        "domain/micu/seconds/train": 1.0,
        "domain/sicu/heldout_loss": 4.0,
        "domain/sicu/examples": 11.0,
        "domain/sicu/seconds/train": 2.0,
    }
    assert (last.step, last.time_s, last.final) == (2, finished.time_s, True)
    assert last.values == {
        "final/loss_before": 3.0,
        "final/loss_after": 0.5,
        "loss/heldout": 0.5,
        "domain/micu/heldout_loss": 0.4,
        "domain/sicu/heldout_loss": 0.6,
    }


@given(st.lists(events(), max_size=8))
def test_any_history_comes_to_finite_numbers_under_plain_names(happened):
    for row in rows(happened, LABELS):
        assert all(NAME.fullmatch(name) for name in row.values)
        assert all(value - value == 0 for value in row.values.values())
        assert MARK in row.values
        assert "@" not in "".join(row.values)


@given(any_of(RoundFinished), st.floats(0, 100), st.dictionaries(EMAIL, st.integers(0, 9), max_size=3))
def test_a_number_of_a_later_version_is_drawn_without_being_listed(event, epsilon, staleness):
    newer = dataclasses.make_dataclass(
        "Newer",
        [("epsilon", float), ("staleness", dict), ("how", str)],
        bases=(RoundFinished,),
        frozen=True,
        kw_only=True,
    )
    later = newer(**vars(event), epsilon=epsilon, staleness=staleness, how="late")
    (row,) = rows([later], short_names(staleness))
    assert row.values["epsilon"] == epsilon
    assert sum(name.startswith("staleness/") for name in row.values) == len(staleness)
    assert "how" not in row.values


@given(st.lists(EMAIL, unique=True, max_size=8))
def test_every_domain_has_a_name_of_its_own(emails):
    names = short_names(emails)
    assert set(names) == set(emails)
    assert len(set(names.values())) == len(emails)
    assert all(NAME.fullmatch(name) for name in names.values())


def test_names_are_short_where_they_can_be():
    assert short_names(["micu@x.org", "sicu@x.org"]) == {"micu@x.org": "micu", "sicu@x.org": "sicu"}
    assert short_names(["icu@x.org", "icu@y.org"]) == {"icu@x.org": "icu-at-x.org", "icu@y.org": "icu-at-y.org"}
    assert set(short_names(["a+b@x.org", "a_b@x.org"]).values()) == {"domain-1", "domain-2"}


def test_a_plan_is_told_without_who_takes_part_and_their_keys():
    plan = Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint="1" * 64),
        cohort=tuple(
            MemberChoice(email=f"{name}@x.org", fingerprint=key * 64) for name, key in (("b", "2"), ("a", "3"))
        ),
        base_model=BaseModelChoice(name="tiny", digest="4" * 64),
    )
    told = parameters(plan)
    assert told["domains"] == "a, b"
    assert told["training.rounds"] == 3
    assert told["protection.level"] == "sealed"
    assert told["lora.targets"] == '["q_proj", "v_proj"]'
    assert told["base_model.name"] == "tiny"
    assert "privacy" not in told
    text = repr(told)
    assert not any(secret in text for secret in ("1" * 64, "2" * 64, "3" * 64, "4" * 64, "@"))
