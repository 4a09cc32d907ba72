"""The task section: what each kind reads, when that is known, and which settings do not fit."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from study_plans import as_yaml, refusal, tasks

from fedpriv.study import TaskChoice, parse_plan
from fedpriv.study.task import ICD9_CHAPTERS, TaskKind


def test_a_plan_without_a_task_is_what_it_always_was():
    task = parse_plan(as_yaml()).task
    assert (task.kind, task.categories, task.window, task.questions) == (
        "language_modelling",
        ("discharge summary",),
        None,
        (),
    )


@pytest.mark.parametrize(("kind", "questions"), [("mortality", 1), ("icd9_chapters", 19), ("readmission", 1)])
def test_predictive_tasks_ask_different_questions(kind, questions):
    task = TaskChoice(kind=kind)
    assert task.is_predictive
    assert len(set(task.questions)) == len(task.questions) == questions
    assert all(question.endswith("?") and "\n" not in question for question in task.questions)


def test_the_chapters_follow_each_other_without_a_gap():
    ranges = [tuple(map(int, name.split("-"))) for name in ICD9_CHAPTERS if name[0].isdigit()]
    assert ranges[0][0] == 1
    assert ranges[-1][1] == 999
    assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "death"}, "task > kind"),
        ({"window_hours": 24}, "window_hours belongs to mortality"),
        ({"kind": "mortality", "window_hours": 0}, "task > window_hours"),
        ({"kind": "mortality", "notes": ["discharge summary"]}, "it is written at discharge"),
        ({"notes": ["nursing", "nursing"]}, "notes names a category twice"),
        ({"notes": ["Nursing"]}, "task > notes > 1"),
        ({"template": "../own.txt"}, "task > template"),
        ({"template": "own.py"}, "task > template"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes, words):
    assert words in refusal(as_yaml(task=changes))


@given(tasks())
def test_every_task_says_in_words_what_it_reads(task):
    words = task.in_words()
    assert all(category in words for category in task.categories)
    assert task.categories or "the structured tables alone" in words
    assert (task.template or "the stock template") in words
    assert "{" not in words


def test_the_window_is_said():
    assert "24 hours after admission" in TaskChoice(kind="mortality", window_hours=24).in_words()
    assert TaskChoice(kind="mortality").window == 48
    assert {kind: TaskChoice(kind=kind).window for kind in get_args(TaskKind) if kind != "mortality"} == dict.fromkeys(
        ("language_modelling", "icd9_chapters", "readmission")
    )
