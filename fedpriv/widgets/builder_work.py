"""Tries the code of a study that is being written on mock data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.trial import DryRun, Trial, model_of, shorter, trial_folder
from fedpriv.errors import StoppedError, TrainingError
from fedpriv.study import CodeRequest

MOST_SECONDS = 300
MOST_THREADS = 4


class Working(Protocol):
    """Is told what is done just now, and how far it is."""

    def __call__(self, words: str, step: int = 0, steps: int = 0, /) -> None: ...


def try_on_mock(request: CodeRequest, steps: int, state: Path, *, stop: Callable[[], bool], working: Working) -> DryRun:
    """Run a request's code on mock data, in the sandbox that this machine has, in a process of its own.

    Parameters
    ----------
    steps : int
        Optimiser steps at most.
    state : Path
        The researcher's state; the try has a folder in it and leaves none.
    stop : Callable[[], bool]
        Asked about four times a second.

    Raises
    ------
    StoppedError
        If ``stop`` said so.
    LockError, ModelError, RefusedError
        If another try goes on; if there is no base model, or another one than the plan names.
    """

    def watch() -> None:
        if stop():
            raise StoppedError("The try was stopped", kept="Nothing was changed", todo="try again at any time")

    model = model_of(request.plan)
    with trial_folder(state, "A try") as root:
        return Trial(
            request=request,
            plan=shorter(request.plan, steps=steps, max_seconds=MOST_SECONDS),
            resources=ResourcesChoice(threads=min(MOST_THREADS, os.cpu_count() or 1), sandbox="preferred"),
            model=model,
            root=root,
            evaluate=True,
            watch=watch,
        ).run(lambda step, of: working("Training on mock data", step, of))


def outcome_of(trial: DryRun) -> str:
    """Return that a try went well.

    Raises
    ------
    TrainingError
        If it did not, with why.
    """
    if trial.outcome != "passed":
        raise TrainingError(f"The try did not go well: {trial.reason}", kept="Your text is kept", todo="see its log")
    return "The try went well."
