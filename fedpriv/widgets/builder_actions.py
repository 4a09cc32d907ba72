"""What a person may ask of a study that is being written, and what is done then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fedpriv.errors import PlanError
from fedpriv.study.request import MAX_BUNDLE_BYTES, PLAN_FILE, RECIPE_FILE
from fedpriv.study.section import Section
from fedpriv.study.yaml_text import MAX_PLAN_BYTES
from fedpriv.widgets.builder import Builder
from fedpriv.widgets.builder_state import Typed, with_choice, with_file
from fedpriv.widgets.plan_fields import FIELDS


class SetField(Section):
    """Set a control: the plan's text says so then."""

    do: Literal["set"]
    path: str = Field(max_length=64)
    value: str | int | float | None


class SetText(Section):
    """Change the text of the plan or of the recipe. ``page`` and ``number`` say which page's change this was."""

    do: Literal["text"]
    file: Literal["plan.yaml", "train.py"]
    text: str = Field(max_length=MAX_BUNDLE_BYTES)
    page: str = Field(default="", max_length=32)
    number: int = Field(default=0, ge=0)


class Try(Section):
    """Train on mock data for so many steps."""

    do: Literal["try"]
    steps: int = Field(default=4, ge=1, le=50)


class StopTrying(Section):
    """End a try."""

    do: Literal["stop"]


class Save(Section):
    """Write the files into the study's folder."""

    do: Literal["save"]


class ReadAgain(Section):
    """Take the folder's files in place of what stands here."""

    do: Literal["read"]


class Submit(Section):
    """Save, and send the request to the data owners."""

    do: Literal["submit"]


Action = SetField | SetText | Try | StopTrying | Save | ReadAgain | Submit
ACTIONS: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


def carry_out(builder: Builder, action: Action) -> str:  # noqa: PLR0911 - one for each kind of action
    """Do what was asked, and say in a sentence what came of it.

    Raises
    ------
    FedprivError
        If it cannot be done.
    """
    match action:
        case SetField():
            return _set(builder, action)
        case SetText():
            return _write(builder, action)
        case Try():
            builder.try_out(action.steps)
            return "It is tried on mock data."
        case StopTrying():
            builder.stop_trying()
            return "The try ends as soon as it can."
        case Save():
            study = builder.save()
            return f"Saved to {study.folder.root}. Nothing was sent."
        case ReadAgain():
            builder.read_again()
            return "The files were read from the study's folder again."
        case Submit():
            builder.submit()
            return "Saved; the request is on its way to every domain."


def _set(builder: Builder, action: SetField) -> str:
    if action.path not in FIELDS:
        raise PlanError("There is no such setting on the form", kept="Nothing was changed", todo="write it as text")
    builder.edit(lambda state: with_choice(state, action.path, action.value))
    return _standing(builder)


def _write(builder: Builder, action: SetText) -> str:
    if action.file == PLAN_FILE and len(action.text.encode("utf-8", "surrogatepass")) > MAX_PLAN_BYTES:
        raise PlanError(
            f"plan.yaml would be larger than {MAX_PLAN_BYTES} bytes",
            kept="It stands on this page only",
            todo="keep only the plan in it",
        )
    typed = Typed(page=action.page, number=action.number)
    builder.edit(lambda state: with_file(state, action.file, action.text, typed))
    return _standing(builder) if action.file == PLAN_FILE else f"{RECIPE_FILE} is kept as you write it."


def _standing(builder: Builder) -> str:
    """Say whether the plan is right, and if not how much is wrong; what it is stands beside the text."""
    wrong = len(builder.state.draft.troubles)
    if not wrong:
        return "The plan is right."
    return "One thing in the plan is not right yet." if wrong == 1 else f"{wrong} things in the plan are not right yet."
