"""What a person may ask of a cohort's mock data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fedpriv.study.names import Email
from fedpriv.study.section import Section
from fedpriv.widgets.explorer import Explorer
from fedpriv.widgets.explorer_state import with_text


class Look(Section):
    """Fetch the mock sides again."""

    do: Literal["look"]


class ShowText(Section):
    """Show a sample text of a domain."""

    do: Literal["text"]
    domain: Email
    number: int = Field(ge=0)


Action = Look | ShowText
ACTIONS: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


def carry_out(explorer: Explorer, action: Action) -> str:
    """Do what was asked, and say in a sentence what came of it.

    Raises
    ------
    FedprivError
        If it cannot be done.
    """
    match action:
        case Look():
            explorer.look()
            return "The domains are asked for their mock data."
        case ShowText():
            explorer.change(lambda state: with_text(state, action.domain, action.number))
            return f"Text {action.number + 1} of {action.domain}, made up."
