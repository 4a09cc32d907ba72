from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.study.shard import LEAST_COUNT, ShardStatement, coarse, differences

NEEDED = {"ADMISSIONS": ("diagnosis",), "NOTEEVENTS": ("text",)}


def statement(member="a@x.org", **changed) -> ShardStatement:
    return ShardStatement(
        **{
            "member": member,
            "dataset": "mimic-iii",
            "schema_sha256": "a" * 64,
            "task_sha256": "b" * 64,
            "tables": {"ADMISSIONS": ("diagnosis", "dischtime"), "NOTEEVENTS": ("text",)},
            "patients": 100,
            "admissions": 120,
            "examples": 100,
            "heldout_examples": 20,
            **changed,
        }
    )


@given(st.integers(0, 10**8))
def test_a_count_is_told_to_two_digits_at_most(count):
    told = coarse(count)
    assert told <= count
    assert told % 10 == 0
    assert (told == 0) == (count < LEAST_COUNT)
    assert count - told < max(10, count / 9)
    assert len(str(told).rstrip("0")) <= 2
    assert coarse(told) == told


def test_shards_that_hold_different_amounts_agree():
    given_ = {"a": statement(), "b": statement("b@x.org", patients=20, admissions=20)}
    assert differences(given_, NEEDED) == []


def test_what_the_task_does_not_read_makes_no_difference():
    other = statement("b@x.org", tables={"ADMISSIONS": ("diagnosis",), "NOTEEVENTS": ("text",)})
    assert differences({"a": statement(), "b": other}, NEEDED) == []


def test_every_difference_is_named_with_who_and_what():
    given_ = {
        "a": statement(),
        "b": statement("b@x.org", schema_sha256="c" * 64),
        "c": statement("c@x.org", task_sha256="c" * 64),
        "d": statement("d@x.org", tables={"ADMISSIONS": ("diagnosis",)}),
        "e": statement("e@x.org", tables={"ADMISSIONS": ("dischtime",), "NOTEEVENTS": ("text",)}),
    }
    found = differences(given_, NEEDED)
    assert found == [
        "b harmonised by other rules (another version of fedpriv)",
        "c told for another task or by another template",
        "e with ADMISSIONS.DIAGNOSIS mostly empty, which others have",
        "d without NOTEEVENTS, which a, b, c, e has",
    ]
