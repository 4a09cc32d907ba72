import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from study_plans import as_yaml, refusal

from fedpriv.errors import PlanError
from fedpriv.study.plan import parse_plan
from fedpriv.study.yaml_text import MAX_PLAN_BYTES, dump_inline, dump_yaml, load_yaml


@pytest.mark.parametrize("text", ["2e-3", "2.0e-3", "0.002", "2E-3", "2.e-3"])
def test_numbers_may_be_written_in_every_usual_way(text):
    assert parse_plan(as_yaml() + f"training: {{learning_rate: {text}}}").training.learning_rate == 0.002


def test_text_that_looks_like_a_number_stays_text():
    plan = parse_plan(as_yaml(title="'1e5'").replace("'''1e5'''", "'1e5'").replace("name: tiny", "name: '7e3'"))
    assert (plan.title, plan.base_model.name) == ("1e5", "7e3")
    assert parse_plan(plan.to_yaml()) == plan


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("training: {rounds: 1}\ntraining: {rounds: 999}", "the key 'training' stands twice"),
        ("training: {rounds: 1, rounds: 999}", "the key 'rounds' stands twice"),
        ("lora: &a {rank: 4}\ntitle: *a", "anchors are not allowed"),
        ("training: {<<: {rounds: 1}, rounds: 2}", "stands twice"),
        ("title: !!python/object/apply:os.system [echo]", "tags are not allowed"),
        ("title: !!python/name:os.system", "tags are not allowed"),
        ("? [a, b]\n: 1", "not readable YAML"),
        ("title: [", "not readable YAML"),
        ("title: 'a\x00b'", "not readable YAML"),
        ("--- \na: 1", "not readable YAML"),
    ],
)
def test_yaml_that_two_readers_could_read_differently_is_refused(extra, words):
    assert words in refusal(as_yaml() + extra)


@pytest.mark.parametrize(
    "extra", ["title: 2026-01-01", "title: !!binary aGk=", "metrics: !!set {examples}", "title: ~"]
)
def test_yaml_values_that_json_lacks_are_refused(extra):
    refusal(as_yaml() + extra)


@pytest.mark.parametrize("text", ["", "3", "- a", "# nothing", "\ud800", "a: \ud800"])
def test_text_that_is_no_mapping_is_refused(text):
    refusal(text)


def test_a_plan_beyond_its_limit_is_not_parsed():
    assert "larger than" in refusal("#" * (MAX_PLAN_BYTES + 1))


@pytest.mark.parametrize("piece", ["[", "{a: ", "- ", "? "])
def test_deep_text_does_not_keep_the_reader_busy(piece):
    begun = time.monotonic()
    assert "nested more than 16 deep" in refusal(piece * 50_000)
    assert time.monotonic() - begun < 20


def test_many_keys_do_not_keep_the_reader_busy():
    text = "\n".join(f"a{number}: 1" for number in range(20_000))
    begun = time.monotonic()
    assert len(load_yaml(text, source="it")) == 20_000
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("value", ["!!bool x", "!!int ''", "!!float ''", "!!timestamp x", "!!seq x", "! x", "&a 1"])
def test_tags_and_anchors_end_in_a_sentence_and_not_in_errors_of_the_parser(value):
    with pytest.raises(PlanError, match="not allowed"):
        load_yaml(f"a: {value}\n", source="plan.yaml")


PIECES = st.sampled_from(
    [*"!&*|>-?:,[]{}'\"#%@`\n ", "!!", "<<", "a: ", "- ", "2026-11-28", "0x", "0b", "1:60", ".", "=", "~"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=25))
def test_any_text_is_settings_or_a_sentence(pieces):
    try:
        assert isinstance(load_yaml("".join(pieces), source="plan.yaml"), dict)
    except PlanError as error:
        assert "plan.yaml" in error.what


WORDS = st.text(st.characters() | st.sampled_from("\n\r\x85\u2028\u2029\ufeff\x00 :#'\"-"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(WORDS, VALUES, max_size=3))
@example({"title": "\x85", "a\x85b": ["\x85", "2e3"]})
def test_what_is_written_is_read_as_the_same_value(value):
    assert load_yaml(dump_yaml(value), source="plan.yaml") == value
    assert load_yaml(f"a: {dump_inline(value)}\n", source="plan.yaml") == {"a": value}
