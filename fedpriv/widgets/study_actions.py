"""What a person may ask of a study from a screen, and what is done then."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fedpriv.errors import StudyError
from fedpriv.researcher.study import Study
from fedpriv.study.names import Email
from fedpriv.study.section import Section
from fedpriv.widgets.action_queue import ActionQueue, Answer
from fedpriv.widgets.draft import Choice, choose
from fedpriv.widgets.study_process import start_release, start_run
from fedpriv.widgets.submit_child import submit_in_child


class Submit(Section):
    """Send the request to the data owners."""

    do: Literal["submit"]


class Start(Section):
    """Run the rounds, or go on with them."""

    do: Literal["start"]


class Pause(Section):
    """Begin no further round."""

    do: Literal["pause"]


class Step(Section):
    """Pause after so many more rounds; go on with them if the study is paused."""

    do: Literal["step"]
    rounds: int = Field(default=1, ge=1, le=1000)


class Stop(Section):
    """End the run; what is done is kept."""

    do: Literal["stop"]


class Adjust(Section):
    """Change what may be changed between rounds."""

    do: Literal["adjust"]
    alpha: float | None = Field(default=None, ge=0, le=4)
    patience_s: int | None = Field(default=None, ge=1, le=86_400)


class Exclude(Section):
    """Wait for a domain no more."""

    do: Literal["exclude"]
    domain: Email
    reason: str = Field(default="", max_length=500)


class Readmit(Section):
    """Let an excluded domain take part again."""

    do: Literal["readmit"]
    domain: Email


class SkipRound(Section):
    """Leave the round at work without a sum."""

    do: Literal["skip"]


class Plan(Section):
    """Change one choice of a draft's plan, which was not submitted yet."""

    do: Literal["plan"]
    choice: Choice
    value: float | str = Field(union_mode="left_to_right")


class Release(Section):
    """Ask the data owners for the adapter, and write it to a new folder."""

    do: Literal["release"]
    folder: str = Field(min_length=1, max_length=1024)


Action = Submit | Start | Pause | Step | Stop | Adjust | Exclude | Readmit | SkipRound | Plan | Release
_ACTIONS: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


def study_actions(study: Study, on_answer: Callable[[Answer], None]) -> ActionQueue[Action]:
    """Return a queue of what is asked of a study, which may run in any process."""
    name = f"actions {study.folder.root.name}"
    return ActionQueue(_ACTIONS, functools.partial(carry_out, study), on_answer, name=name)


def carry_out(study: Study, action: Action) -> str:  # noqa: PLR0911 - one for each kind of action
    """Do what was asked, and say in a sentence what came of it.

    Raises
    ------
    FedprivError
        If it cannot be done.
    """
    match action:
        case Submit():
            submit_in_child(study, lambda words, step=0, steps=0: None)
            return "The request is with the data owners."
        case Start():
            return _start(study)
        case Pause():
            return f"No round begins after round {study.pause()}."
        case Step():
            return _step(study, action.rounds)
        case Stop():
            study.stop()
            return "The run ends as soon as it can; what is done is kept."
        case Adjust():
            changes = action.model_dump(exclude={"do"}, exclude_none=True)
            study.adjust(**changes)
            return "From the next round on: " + ", ".join(f"{name} {value:g}" for name, value in changes.items())
        case Exclude():
            return study.exclude(action.domain, action.reason) or f"{action.domain} is not waited for any more."
        case Readmit():
            study.readmit(action.domain)
            return f"{action.domain} takes part again from the next round on."
        case SkipRound():
            return f"Round {study.skip_round()} gets no sum."
        case Plan():
            return choose(study, action.choice, action.value)
        case Release():
            target = Path(action.folder).expanduser()
            if study.folder.record("finished") is None:
                raise StudyError("The study is not finished yet", todo="run its rounds to the end first")
            start_release(study, target)
            return f"The data owners are asked; the adapter will be in {target}."


def _step(study: Study, rounds: int) -> str:
    """Do so many rounds and pause; a run is started where there is none."""
    status = study.status()
    if status["interrupted"]:  # going on with it takes back every pause
        raise StudyError("The last run of the study was killed", todo="go on with the rounds first, then pause or step")
    after = study.step(rounds)
    if not status["running"]:
        start_run(study)
    return f"On to round {after}; then it pauses."


def _start(study: Study) -> str:
    """Start the rounds where no process runs them; else let a paused run go on."""
    status = study.status()
    if not status["submitted"]:
        raise StudyError("The study was not submitted yet", todo="submit it first")
    if status["finished"]:
        raise StudyError("The study is finished", todo="ask for the release of its adapter")
    if not status["running"]:
        start_run(study, resume=status["interrupted"] or status["finished_rounds"] > 0)
        return "The rounds run."
    study.unpause()
    return "The rounds go on."
