"""A change of one setting: it is read as that change and no other, and the rest of the text stays."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedpriv.errors import PlanError
from fedpriv.study import Plan, load_yaml, parse_plan
from fedpriv.widgets.plan_text import line_of, put
from tests.study.study_plans import as_yaml, plans

PATHS = [
    (section, name)
    for section, field in Plan.model_fields.items()
    for name in getattr(field.annotation, "model_fields", {})
] + [("title",), ("privacy",), ("privacy", "epsilon"), ("aggregation", "server", "optimizer"), ("metrics",)]

names = st.from_regex("[a-z_]{1,9}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**6) | st.floats(0, 1e6) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


def nested(values, path, value):
    if not path:
        return value
    inner = dict(values) if isinstance(values, dict) else {}
    return inner | {path[0]: nested(inner.get(path[0]), path[1:], value)}


@given(plan=plans(), path=st.sampled_from(PATHS), value=values)
@example(plan=parse_plan(as_yaml(title="a: b # c")), path=("title",), value="it's\n'#'")
def test_a_change_is_that_change_and_no_other(plan, path, value):
    text = "# why\n" + plan.to_yaml().replace("\ntask:", "\n\n# the task\ntask:").replace(
        "training:", "training:  # cost"
    )
    changed = put(text, {path: value})
    assert load_yaml(changed, source="x") == nested(load_yaml(text, source="x"), path, value)


@given(plan=plans(), rounds=st.integers(1, 1000), weights=st.sampled_from(["fedavg", "uniform"]))
def test_all_other_lines_stay_to_the_byte(plan, rounds, weights):
    lines = [
        f"{line}  # note {n}" if line.endswith(("0", "5")) else line
        for n, line in enumerate(plan.to_yaml().splitlines())
    ]
    lines.insert(1, "")
    text = "\n".join(["# mine", *lines, ""])
    changed = put(text, {("training", "rounds"): rounds, ("aggregation", "weights"): weights})
    before, after = text.split("\n"), changed.split("\n")
    assert len(before) == len(after)
    odd = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert all(new.lstrip().startswith(("rounds: ", "weights: ")) for _, new in odd)
    for old, new in odd:
        assert old.partition("  #")[2] == new.partition("  #")[2]


TEXT = """# what for
title: ICU  # short
training: {rounds: 3, steps: 4}
protection:
  level: sealed

  # eight were too few
  bits: 10
privacy:
cohort:
- email: a@x.org
  fingerprint: 00
- email: b@x.org   # the last
"""


COHORT = "cohort:\n- email: a@x.org\n  fingerprint: 00\n- email: b@x.org"
PROTECTION = "protection:\n  level: sealed\n\n  # eight were too few\n  bits: 10\n"


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("title",), "x: y", "title: ICU  # short", "title: 'x: y'  # short"),
        (("training", "rounds"), 5, "{rounds: 3, steps: 4}", "{rounds: 5, steps: 4}"),
        (("training", "seed"), 7, "{rounds: 3, steps: 4}", "{rounds: 3, steps: 4, seed: 7}"),
        (("protection", "bits"), 8, "  bits: 10", "  bits: 8"),
        (("protection", "clip"), 0.5, "  bits: 10\n", "  bits: 10\n  clip: 0.5\n"),
        (("privacy",), None, "privacy:\n", "privacy: null\n"),
        (("privacy", "epsilon"), 8.0, "privacy:\n", "privacy:\n  epsilon: 8.0\n"),
        (("lora", "rank"), 4, "# the last\n", "# the last\nlora:\n  rank: 4\n"),
        (("cohort",), [], COHORT, "cohort: []"),
        (("protection",), None, PROTECTION, "protection: null\n"),
    ],
)
def test_a_text_of_a_person_is_changed_in_its_place(path, value, old, new):
    assert TEXT.count(old) == 1
    assert put(TEXT, {path: value}) == TEXT.replace(old, new)


def test_odd_layouts_are_written_anew_and_read_the_same():
    for text in (
        '{"training": {"rounds": 3}}',
        "training:\n    ? rounds\n    : 3\n",
        "--- {}\n",
    ):
        changed = put(text, {("training", "rounds"): 4, ("title",): "t"})
        assert load_yaml(changed, source="x") == {"training": {"rounds": 4}, "title": "t"}


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2", "- 1", "a: &x 1\nb: *x", "a: !!map {b: 1}", ""])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(PlanError):
        put(text, {("a",): 1})


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("training", "rounds"), 3),
        (("protection", "bits"), 8),
        (("protection", "none"), 4),
        (("cohort", 1, "email"), 13),
        (("cohort", 1, "fingerprint"), 13),
        (("cohort", 9), 10),
        (("nothing",), 0),
        ((), 0),
    ],
)
def test_the_line_of_a_setting(path, line):
    assert line_of(TEXT, path) == line


def test_no_line_where_nothing_can_be_read():
    assert line_of("a: [", ("a",)) == 0
    assert line_of("", ("a",)) == 0
