"""Templates: what they tell, what is left out of them, and that nothing in them is ever evaluated."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import PlanError
from fedpriv.study import TaskChoice
from fedpriv.study.template import FIELDS, MAX_TEMPLATE_BYTES, check_fields, parse_template

VALUES = {"person": "A man", "problem": "fever", "drugs": "Aspirin, Heparin", "notes": "He felt\nwell."}


def told(text, *, with_notes=True, **changes):
    return parse_template(text, source="own.txt").render({**VALUES, **changes}, with_notes=with_notes)


def test_lines_become_one_paragraph_and_empty_lines_begin_another():
    text = "# a comment\n{person} came.\nProblem: {problem}.\n\n  {notes}  \n"
    assert told(text) == "A man came. Problem: fever.\nHe felt\nwell."


def test_a_line_with_an_empty_field_is_left_out_unless_the_field_may_be_empty():
    text = "{person} came with {drugs} and {labs}.\n{they?} {person} came {came_from?} with {problem}."
    assert told(text) == "A man came with fever."
    assert told("{labs}.\n\n{outcome}", labs="") == ""


def test_parts_for_admissions_with_and_without_notes():
    text = "{person}.\n[with notes]\n{notes}\n[without notes]\n{problem}"
    assert told(text) == "A man.\nHe felt\nwell."
    assert told(text, with_notes=False) == "A man.\nfever"


def test_values_are_never_read_as_a_template():
    evil = "{person} {0.__class__} {problem!r} [with notes]\n# {labs}"
    assert told("Problem: {problem}.", problem=evil) == f"Problem: {evil}."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no field"),
        ("The same for all.", "names no field"),
        ("{unknown}", "line 1: there is no field {unknown}"),
        ("{person}\n{person.__class__}", "line 2: a brace that is no {field}"),
        ("{person!r}", "a brace that is no {field}"),
        ("{person:>99999999}", "a brace that is no {field}"),
        ("{{person}}", "a brace"),
        ("{}", "a brace"),
        ("{person", "a brace"),
        ("person}", "a brace"),
        ("{section:}", "a brace"),
        ("[with notes]\n{notes}\n[with notes]\n{person}", "line 3: [with notes] stands twice"),
        ("{notes}\n{notes}", "twice"),
        ("{notes}\n[with notes]\n{notes}", "twice"),
        ("{section:plan}\n{section:plan}", "twice"),
        ("{person}" + " " * MAX_TEMPLATE_BYTES, "larger than"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, words):
    with pytest.raises(PlanError) as caught:
        parse_template(text, source="own.txt")
    assert words in caught.value.what
    assert caught.value.what.startswith("The template own.txt")


@given(st.text(st.sampled_from(string.ascii_lowercase[:6] + "{}?:_ .\n#[]"), max_size=80))
def test_any_text_is_a_template_or_refused(text):
    try:
        template = parse_template(text, source="own.txt")
    except PlanError:
        return
    rendered = template.render(dict.fromkeys(template.fields, "x"), with_notes=True)
    assert "{" not in rendered
    assert template.render({}, with_notes=False) is not None


@given(
    st.lists(st.sampled_from(sorted(set(FIELDS) - {"notes"})), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(string.ascii_letters + "{}", max_size=6)),
)
def test_a_line_is_its_values_put_together(names, values):
    line = "; ".join(f"{{{name}}}" for name in names)
    wanted = "; ".join(values.get(name, "") for name in names) if all(values.get(name) for name in names) else ""
    assert parse_template(line, source="own.txt").render(values, with_notes=True) == wanted


@pytest.mark.parametrize(
    ("kind", "allowed", "refused"),
    [
        ("language_modelling", FIELDS, ()),
        ("mortality", ("person", "drugs", "labs", "notes"), ("outcome", "diagnoses", "procedures", "next_admission")),
        (
            "icd9_chapters",
            ("outcome", "section:brief hospital course"),
            ("diagnoses", "procedures", "next_admission", "section:discharge diagnosis"),
        ),
        ("readmission", ("outcome", "diagnoses", "section:discharge diagnosis"), ("next_admission",)),
    ],
)
def test_a_task_may_use_what_is_known_at_its_moment_and_not_its_answer(kind, allowed, refused):
    task = TaskChoice(kind=kind)
    for name in allowed:
        check_fields(parse_template(f"{{{name}}}", source="own.txt"), task, source="own.txt")
    for name in refused:
        with pytest.raises(PlanError, match=name):
            check_fields(parse_template(f"{{{name}?}}", source="own.txt"), task, source="own.txt")


def test_the_documentation_lists_every_field_and_when_it_is_known():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    for name, field in FIELDS.items():
        assert f"| `{name}` | {field.moment} | {field.words} |" in page
