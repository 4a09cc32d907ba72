"""Codes, dates and words are converted without loss, and what cannot be converted fails a check."""

from __future__ import annotations

import datetime
import re
import unicodedata

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.clinical.ccu_schema import dotted
from fedpriv.clinical.conversion import convert
from fedpriv.clinical.mapping import TableMapping
from fedpriv.clinical.schema import SPECS, Column

CODES = st.from_regex(r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}", fullmatch=True).filter(str.isascii)
FORMATS = (
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%Y%m%d %H%M%S",
    "%d %b %Y, %H:%M:%S",
    "%B %d %Y %I.%M.%S%p",
    "%S:%M:%H at %d-%m-%Y 100%%",
)
TIMES = st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)).map(
    lambda time: time.replace(microsecond=0)
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
CONNECTION = duckdb.connect(":memory:")


def trimmed(text: str) -> str:
    """Return ``text`` without the blanks around it, as duckdb's trim does: spaces of every width, no tabs."""
    return text.strip("".join(c for c in set(text) if unicodedata.category(c) == "Zs") or " ")


def column(table: str, name: str) -> Column:
    (found,) = [column for column in SPECS[table].needed if column.name == name]
    return found


def converted(target: Column, rows: list[str], **settings) -> list[tuple[str | None, str | None]]:
    """Return each row's text in MIMIC-III, and the problem that the first failed check tells."""
    table = TableMapping(file="t.csv", columns={target.name: "theirs"}, **settings)
    made = convert(target, table, "f0")
    flags = "".join(f", coalesce({check.bad}, false)" for check in made.checks)
    sql = f"SELECT {made.sql}{flags} FROM (SELECT unnest($rows::VARCHAR[]) AS f0)"  # noqa: S608
    result = []
    for text, *bad in CONNECTION.execute(sql, {**made.parameters, "rows": rows}).fetchall():
        problems = [check.problem for check, is_bad in zip(made.checks, bad, strict=True) if is_bad]
        result.append((text, problems[0] if problems else None))
    return result


@given(st.lists(CODES, min_size=1), st.sampled_from((str.lower, str.upper)))
def test_codes_come_back_from_both_ways_to_write_them(codes, case):
    target = column("DIAGNOSES_ICD", "icd9_code")
    expected = [(code, None) for code in codes]
    assert converted(target, [case(dotted(code)) for code in codes], icd9="dotted") == expected
    assert converted(target, [f" {case(code)} " for code in codes], icd9="plain") == expected


@given(st.lists(TEXTS | st.from_regex(r"[EVev]?[0-9]{1,4}\.?[0-9]{0,3}", fullmatch=True), min_size=1))
@pytest.mark.parametrize("icd9", ["dotted", "plain"])
def test_what_is_no_code_is_never_taken_for_one(icd9, texts):
    for given_text, (text, problem) in zip(
        texts, converted(column("DIAGNOSES_ICD", "icd9_code"), texts, icd9=icd9), strict=True
    ):
        if not trimmed(given_text):
            assert (text, problem) == (None, None)
        elif problem is None:
            assert re.fullmatch(r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}", text)
            assert text == trimmed(given_text).replace(".", "").upper()


def test_codes_that_lost_a_zero_or_their_dot_are_refused():
    target = column("DIAGNOSES_ICD", "icd9_code")
    for text in ("38.0", "41011", "410.", "410.111", "e88.0", "e880.91", "v1.5", "i21.4", "410 11"):
        assert converted(target, [text], icd9="dotted")[0][1], text
    for text in ("380.1", "38", "410111", "E88", "I214"):
        assert converted(target, [text], icd9="plain")[0][1], text


@pytest.mark.parametrize("form", FORMATS)
@given(st.lists(TIMES, min_size=1))
def test_times_come_back_from_every_format(form, times):
    target = column("ADMISSIONS", "admittime")
    rows = [time.strftime(form) for time in times]
    assert converted(target, rows, dates={"admittime": form}) == [(str(time), None) for time in times]


@given(st.lists(TEXTS, min_size=1))
def test_a_time_is_read_or_refused(texts):
    results = converted(column("ADMISSIONS", "dischtime"), texts, dates={"dischtime": "%d.%m.%Y"})
    for given_text, (text, problem) in zip(texts, results, strict=True):
        assert (problem is None) == (text is not None or not trimmed(given_text))


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda word: word == trimmed(word) == word.strip()
)


@given(st.dictionaries(WORDS, TEXTS, min_size=1), st.lists(TEXTS), st.booleans())
def test_words_are_translated_exactly(code_list, others, complete):
    target = column("PATIENTS", "gender")
    rows = [*code_list, *others]
    results = converted(target, rows, values={"gender": {"map": code_list, "complete": complete}})
    for word, (text, problem) in zip(rows, results, strict=True):
        key = trimmed(word)
        if key in code_list:
            assert (text, problem) == (code_list[key] or None, None)
        elif complete:
            assert text is None
            assert (problem is None) == (not key)
        else:
            assert (text, problem) == (word, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("12", None), (" 12 ", None), ("12.0", None), ("12.5", "whole"), ("1e3", "whole"), ("x", "whole")],
)
def test_numbers_are_not_rounded(text, problem):
    (_, found), *_ = converted(column("ADMISSIONS", "hospital_expire_flag"), [text])
    assert (found is None) if problem is None else problem in found
