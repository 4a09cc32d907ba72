"""A form's controls: they are the plan's own settings, and every choice among them leads to a plan that is valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.study import load_yaml, parse_plan
from fedpriv.study.plan import ANSWER_METRICS
from fedpriv.widgets.plan_fields import FIELDS, NO_PRIVACY, changes_for, value_of, without_meaning
from fedpriv.widgets.plan_text import put
from tests.study.study_plans import as_yaml, plans

FULL = parse_plan(as_yaml()).to_yaml()


def values_of(text):
    return load_yaml(text, source="x")


def chosen(text, path, value):
    return put(text, changes_for(values_of(text), path, value))


def test_controls_have_the_ranges_and_words_of_the_plan():
    rounds, rate = FIELDS["training.rounds"], FIELDS["training.learning_rate"]
    assert (rounds.kind, rounds.least, rounds.most, rounds.default) == ("whole", 1, 1000, 3)
    assert (rate.kind, rate.least, rate.above, rate.most) == ("number", 0, True, 1)
    assert FIELDS["schedule.quorum"].optional
    assert "FedBuff" in FIELDS["schedule.mode"].words
    assert dict(FIELDS["protection.level"].options)["plain"] == "the researcher sees EVERY SINGLE update"
    assert "custom" not in dict(FIELDS["aggregation.weights"].options)
    assert [value for value, _ in FIELDS["privacy.unit"].options] == [NO_PRIVACY, "patient", "domain"]


@given(plan=plans())
def test_every_control_shows_what_the_plan_has(plan):
    values = values_of(plan.to_yaml())
    for path in FIELDS:
        section, _, name = path.rpartition(".")
        found = plan
        for part in filter(None, section.split(".")):
            found = getattr(found, part)
        if found is not None:
            real = getattr(found, name)
            assert value_of(values, path) == real or (real is None and value_of(values, path) == FIELDS[path].default)


def choices(path):
    field = FIELDS[path]
    if field.options:
        return st.sampled_from([value for value, _ in field.options])
    if field.kind in ("text", "choice"):
        return st.just("tiny")
    whole = st.integers(int(field.least), int(min(field.most, 2)) if path.startswith("schedule") else int(field.most))
    number = whole if field.kind == "whole" else st.floats(0.125, field.most)
    return number | st.none() if field.optional else number


click = st.sampled_from(sorted(FIELDS)).flatmap(lambda path: st.tuples(st.just(path), choices(path)))

BUFFERED, ALTERNATE = ("schedule.mode", "buffered"), ("aggregation.averaging", "alternate")


def clash(values, path, value):
    """Say whether a person asks for what the plan refuses, whose sentence they then read."""

    def is_so(what):
        return value == what[1] if path == what[0] else value_of(values, what[0]) == what[1]

    private = value_of(values, "privacy.unit") != NO_PRIVACY
    return (path, value) == ("schedule.buffer", None) or (is_so(BUFFERED) and (private or is_so(ALTERNATE)))


@given(clicks=st.lists(click, max_size=12), start=st.sampled_from([FULL, as_yaml()]))
def test_any_clicks_on_controls_that_have_a_meaning_give_a_valid_plan(clicks, start):
    text = start
    for path, value in clicks:
        values = values_of(text)
        if path in without_meaning(values) or clash(values, path, value):
            continue
        text = chosen(text, path, value)
        assert parse_plan(text)
        shown = value_of(values_of(text), path)
        assert shown == (FIELDS[path].default if value is None else value)


def test_what_belongs_together_changes_together():
    text = chosen(FULL, "schedule.quorum", 2)
    text = chosen(text, "schedule.patience_s", 60)
    buffered = parse_plan(chosen(text, "schedule.mode", "buffered")).schedule
    assert (buffered.buffer, buffered.quorum, buffered.patience_s) == (2, None, 600)
    task = parse_plan(chosen(FULL, "task.kind", "mortality"))
    assert set(ANSWER_METRICS) <= set(task.metrics)
    assert task.task.window_hours == 48
    back = parse_plan(chosen(task.to_yaml(), "task.kind", "language_modelling"))
    assert back == parse_plan(FULL)
    private = parse_plan(chosen(FULL, "privacy.unit", "patient"))
    assert (private.training.batch_size, private.training.learning_rate, private.lora.targets) == (
        16,
        2e-2,
        ("v_proj",),
    )
    assert (private.privacy.epsilon, private.averaging) == (8.0, "b_only")
    assert parse_plan(chosen(private.to_yaml(), "privacy.unit", "domain")).privacy.unit == "domain"
    model = parse_plan(chosen(as_yaml(base_model__digest="a" * 64), "base_model.name", "smollm2-135m-instruct"))
    assert model.base_model.digest is None


def test_only_lines_of_what_belongs_together_change():
    before, after = FULL.splitlines(), chosen(FULL, "training.rounds", 7).splitlines()
    assert [line for line in after if line not in before] == ["  rounds: 7"]
    assert chosen(FULL, "aggregation.weights", "uniform") == FULL.replace("weights: fedavg", "weights: uniform")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"training": 3},
        {"privacy": "x", "schedule": []},
        {"cohort": 7},
        {"lora": None},
        {"metrics": 3},
        {"task": "x"},
    ],
)
def test_odd_values_are_no_error_of_the_form(odd):
    without_meaning(odd)
    for path, field in FIELDS.items():
        value_of(odd, path)
        for value, _ in field.options or ((1, ""),):
            assert isinstance(changes_for(odd, path, value), dict)
