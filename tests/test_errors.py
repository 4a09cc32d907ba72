import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from fedpriv import errors
from fedpriv.errors import FedprivError

PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
CLASSES = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, FedprivError)]

every_class = pytest.mark.parametrize("cls", CLASSES)


def through_pickle(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


def depth_in_tree(name):
    """How deep the tree at the top of the module draws a class, or None."""
    line = re.search(rf"^( *[│├└─ ]*){name}\b", errors.__doc__, re.MULTILINE)
    return None if line is None else (len(line[1]) - 4) // 4


def test_there_are_errors():
    assert len(CLASSES) > 10


@every_class
def test_the_tree_draws_every_class_where_it_belongs(cls):
    assert depth_in_tree(cls.__name__) == len([base for base in cls.__mro__ if issubclass(base, FedprivError)]) - 1


def test_the_tree_draws_nothing_else():
    assert set(re.findall(r"\b\w+Error\b", errors.__doc__)) == {cls.__name__ for cls in CLASSES}


@every_class
def test_every_class_has_a_section_that_says_what_was_kept_and_what_to_do(cls):
    section = re.search(rf"^## {cls.__name__}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, "docs/errors.md has no section"
    for part in ("**Kept**", "**What to do**", "**Example**"):
        assert part in section[1]


def test_the_page_has_no_section_of_a_class_that_is_gone():
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == [cls.__name__ for cls in CLASSES]


@every_class
def test_the_page_explains_every_exit_code(cls):
    assert f"\n| {cls.exit_code} | " in PAGE


@every_class
@pytest.mark.parametrize("stop", ["", "."])
def test_a_message_is_made_of_sentences(cls, stop):
    error = cls(f"It broke{stop}", kept=f"All is kept{stop}", todo=f"mend it{stop}")
    assert str(error) == "It broke. All is kept. Next: mend it."
    assert str(cls("It broke")) == "It broke."
    assert str(cls("It broke", todo="mend it")) == "It broke. Next: mend it."


@every_class
@pytest.mark.parametrize("again", [through_pickle, copy.copy, copy.deepcopy])
def test_an_error_survives_the_way_between_processes(cls, again):
    error = cls("It broke", kept="All is kept", todo="mend it")
    other = again(error)
    assert type(other) is cls
    assert (other.what, other.kept, other.todo, str(other)) == (error.what, error.kept, error.todo, str(error))
    assert other.exit_code == error.exit_code


@every_class
def test_every_class_says_what_it_means(cls):
    assert cls.__doc__
    assert cls.__doc__.split("\n")[0].endswith(".")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("No. Nothing was sent. Next: ask again.", "No. Nothing was sent"),
        ("No. Next: one. Next: two.", "No. Next: one"),
        ("too few patients", "too few patients"),
        ("", ""),
    ],
)
def test_a_reason_is_quoted_without_its_next_step(reason, shown):
    assert errors.quoted(reason) == shown
