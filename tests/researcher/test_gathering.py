"""Waiting for several domains, in virtual time: nobody who moves is given up, nobody who is needed either."""

import asyncio

import pytest

from fedpriv.errors import StudyError
from fedpriv.experiments.simulation import run_in_virtual_time
from fedpriv.researcher.gathering import gather
from fedpriv.study import Result


def answer(email, status="done"):
    return Result(study="0" * 64, ticket_sha256="1" * 64, kind="train", round=1, member=f"{email}@x.org", status=status)


def gathered(answers, *, enough, patience=60.0, signs=None):
    """Gather answers that come after so many virtual seconds; ``signs`` are the seconds between signs of life."""

    async def ask(email, seconds, result):
        await asyncio.sleep(seconds)
        return result

    async def work():
        now = asyncio.get_running_loop().time
        last = {}

        def last_sign(email):
            every = (signs or {}).get(email)
            return now() // every * every if every else last.get(email, 0.0)

        found = await gather(
            {email: ask(email, *what) for email, what in answers.items()},
            enough=lambda: enough,
            patience_s=lambda: patience,
            last_sign=last_sign,
        )
        return found, now()

    return run_in_virtual_time(work())


def test_all_are_waited_for_where_all_are_needed():
    found, seconds = gathered({"a": (1, answer("a")), "b": (9000, answer("b"))}, enough=None)
    assert set(found.done) == {"a", "b"}
    assert seconds >= 9000
    assert not found.silent


def test_who_is_quiet_for_too_long_is_given_up_once_enough_are_in():
    found, seconds = gathered({"a": (1, answer("a")), "b": (80, answer("b")), "c": (9000, answer("c"))}, enough=2)
    assert set(found.done) == {"a", "b"}
    assert 80 <= seconds <= 85  # c had been quiet for longer already
    assert found.silent["c"] > 60
    found, seconds = gathered({"a": (1, answer("a")), "c": (9000, answer("c"))}, enough=2)
    assert set(found.done) == {"a", "c"}


def test_who_shows_signs_of_life_is_waited_for_however_slow():
    answers = {"a": (1, answer("a")), "b": (2, answer("b")), "c": (9000, answer("c"))}
    found, _ = gathered(answers, enough=2, signs={"c": 50.0})
    assert set(found.done) == {"a", "b", "c"}
    found, _ = gathered(answers, enough=2, signs={"c": 100.0})
    assert set(found.done) == {"a", "b"}


def test_refusals_do_not_count_and_the_excluded_are_left_out():
    answers = {"a": (1, answer("a", "refused")), "b": (2, answer("b")), "c": (3, None)}
    found, _ = gathered(answers, enough=2)
    assert set(found.done) == {"b"}
    assert [result.member for result in found.failed] == ["a@x.org"]
    assert set(found.results) == {"a", "b"}


def test_what_goes_wrong_in_one_ends_all():
    async def work():
        async def fails():
            raise StudyError("it broke")

        async def waits():
            await asyncio.sleep(10**9)

        await gather(
            {"a": fails(), "b": waits()}, enough=lambda: None, patience_s=lambda: 1.0, last_sign=lambda email: 0.0
        )

    with pytest.raises(StudyError, match="it broke"):
        run_in_virtual_time(work())
