"""What a person asks of a study from a screen: checked, and carried out one after the other in a thread of its own.

A click never waits for a lock, a store or a domain, and what goes wrong comes back as a sentence.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fedpriv.errors import FedprivError, StudyError
from fedpriv.researcher.study import Study
from fedpriv.study.names import Email
from fedpriv.study.section import Section
from fedpriv.study.validation import in_words
from fedpriv.widgets.study_process import start_release, start_run


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


class Release(Section):
    """Ask the data owners for the adapter, and write it to a new folder."""

    do: Literal["release"]
    folder: str = Field(min_length=1, max_length=1024)


Action = Submit | Start | Pause | Step | Stop | Adjust | Exclude | Readmit | SkipRound | Release
_ACTIONS: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


class StudyActions:
    """Carries out actions on a study.

    Parameters
    ----------
    study : Study
        To be steered; it may run in any process.
    on_done : Callable[[str, str], None]
        Called from the thread with what was asked (``do``) and a sentence: what came of it.
    on_problem : Callable[[str, str], None]
        The same, where it could not be done: what was wrong, what was kept, and what to do.
    """

    def __init__(
        self, study: Study, on_done: Callable[[str, str], None], on_problem: Callable[[str, str], None]
    ) -> None:
        self._study, self._on_done, self._on_problem = study, on_done, on_problem
        self._asked: queue.SimpleQueue[object] = queue.SimpleQueue()
        name = f"actions {study.folder.root.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, action: object) -> None:
        """Take an action, as the JSON object that a screen sent; from any thread, returns at once."""
        self._asked.put(action)

    def close(self) -> None:
        """Do what was asked until now, and end."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            what = str(asked.get("do", "?"))[:20] if isinstance(asked, dict) else "?"
            try:
                action = _ACTIONS.validate_python(asked)
                self._on_done(what, carry_out(self._study, action))
            except ValidationError as error:
                self._on_problem(what, f"This cannot be asked of a study: {in_words(error)}")
            except (FedprivError, OSError) as error:
                self._on_problem(what, str(error))


def carry_out(study: Study, action: Action) -> str:  # noqa: PLR0911 - one for each kind of action
    """Do what was asked, and say in a sentence what came of it.

    Raises
    ------
    FedprivError
        If it cannot be done.
    """
    match action:
        case Submit():
            study.submit()
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
            study.steering.change(**changes)
            return "From the next round on: " + ", ".join(f"{name} {value:g}" for name, value in changes.items())
        case Exclude():
            return study.exclude(action.domain, action.reason) or f"{action.domain} is not waited for any more."
        case Readmit():
            study.readmit(action.domain)
            return f"{action.domain} takes part again from the next round on."
        case SkipRound():
            return f"Round {study.skip_round()} gets no sum."
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
