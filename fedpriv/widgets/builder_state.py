"""What a study that is being written looks like at a moment: its files, what is wrong with them, what it would cost.

The text of ``plan.yaml`` is what counts. Controls are read from it and write into it, so that form and text are always
of the same plan; a text that is no plan yet stays as it is, with what is wrong beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import ValidationError

from fedpriv.domain.trial import DryRun
from fedpriv.errors import FedprivError, PlanError
from fedpriv.study import CodeRequest, Plan, load_yaml, parse_plan
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.study.validation import problems
from fedpriv.widgets.builder_estimates import Estimates
from fedpriv.widgets.model_child import FoundModel
from fedpriv.widgets.plan_fields import changes_for
from fedpriv.widgets.plan_text import SOURCE, Path, line_at, line_of, put

MOST_TROUBLES = 8


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that is wrong with the plan's text.

    Attributes
    ----------
    line : int
        From 1; 0 is the text as a whole.
    path : str
        Of the setting, such as ``training.rounds``; empty if it is none.
    text : str
        A sentence.
    """

    line: int
    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A plan's text, as it stands and as it is read.

    Attributes
    ----------
    text : str
        As a person wrote it.
    values : mapping or None
        What it holds, checked or not; None where it cannot be read as YAML.
    plan : Plan or None
        The plan, if it is one.
    troubles : tuple of Trouble
        Why not.
    """

    text: str
    values: Mapping[str, Any] | None
    plan: Plan | None
    troubles: tuple[Trouble, ...] = ()


def read_draft(text: str) -> Draft:
    """Return what a text is; whatever is wrong with it becomes a sentence."""
    try:
        values = load_yaml(text, source=SOURCE)
    except PlanError as error:
        return Draft(text=text, values=None, plan=None, troubles=(_unreadable(text, error),))
    try:
        return Draft(text=text, values=values, plan=parse_plan(text))
    except PlanError as error:
        return Draft(text=text, values=values, plan=None, troubles=_wrong(text, error))


def _unreadable(text: str, error: PlanError) -> Trouble:
    cause = error.__cause__
    if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
        mark = cause.problem_mark
        words = f"This is no YAML: {cause.problem or 'it cannot be read'} (column {mark.column + 1})"
        return Trouble(line=line_at(text, mark), path="", text=words)
    return Trouble(line=0, path="", text=error.what)


def _wrong(text: str, error: PlanError) -> tuple[Trouble, ...]:
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return (Trouble(line=0, path="", text=error.what),)
    return tuple(
        Trouble(line=line_of(text, place), path=".".join(map(str, place)), text=words)
        for place, words in problems(cause)[:MOST_TROUBLES]
    )


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that takes long and goes on in a thread of its own.

    Attributes
    ----------
    kind : str
        ``model``, ``try`` or ``submit``.
    words : str
        What is done just now.
    step, steps : int
        How far it is; 0 where that cannot be said.
    """

    kind: str
    words: str
    step: int = 0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What came of work of a kind, as a sentence, and whether it was done."""

    kind: str
    text: str
    good: bool


@dataclass(frozen=True, kw_only=True)
class Typed:
    """The last change of a text by a page: which page, and the page's own number of it."""

    page: str = ""
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class BuilderState:
    """A study that is being written.

    Attributes
    ----------
    name : str
        The study's.
    files : mapping of str to str
        The request as it stands: ``plan.yaml``, ``train.py`` and any others.
    draft : Draft
        The plan's text, read.
    values : mapping
        Of the last text that could be read: what controls show.
    typed : Typed
        The page that changed a text last.
    kept : mapping of str to str, or None
        The files as they lie in the study's folder; None where there is none yet.
    submitted : str
        The study's id once it was sent; nothing is changed any more then.
    models : tuple of (str, bool)
        Base models that can be chosen, and whether each is on this machine.
    estimates : Estimates
        What the plan would cost.
    work : Work or None
        What goes on.
    notice : Notice or None
        What came of the last work.
    trial : DryRun or None
        What the last try on mock data showed.
    """

    name: str
    files: Mapping[str, str]
    draft: Draft
    values: Mapping[str, Any]
    typed: Typed = field(default_factory=Typed)
    kept: Mapping[str, str] | None = None
    submitted: str = ""
    models: tuple[tuple[str, bool], ...] = ()
    estimates: Estimates = field(default_factory=Estimates)
    work: Work | None = None
    notice: Notice | None = None
    trial: DryRun | None = None

    @property
    def recipe(self) -> str:
        """The text of ``train.py``."""
        return self.files.get(RECIPE_FILE, "")

    @property
    def is_saved(self) -> bool:
        """Whether the study's folder has all that stands here."""
        return self.kept is not None and dict(self.kept) == dict(self.files)

    def request(self) -> CodeRequest:
        """Return what would be submitted.

        Raises
        ------
        PlanError
            If the plan's text is none, with the first thing that is wrong.
        UntrustedError
            If a file is not one that a data owner could read.
        """
        if self.draft.plan is None:
            trouble = self.draft.troubles[0]
            where = f"line {trouble.line}: " if trouble.line else ""
            raise PlanError(
                f"The plan is not right yet: {where}{trouble.text}",
                kept="All that you wrote is kept",
                todo="correct it on either side",
            )
        told = self.draft.plan.task.template
        named = {name: text for name, text in self.files.items() if not name.endswith(".txt") or name == told}
        return CodeRequest.from_files(named)

    def request_trouble(self) -> str:
        """Return what is wrong with the request beside the plan's own text; nothing if all is right."""
        try:
            self.request()
        except FedprivError as error:
            return "" if self.draft.plan is None else str(error)
        return ""


def started(name: str, files: Mapping[str, str], **others: Any) -> BuilderState:
    """Return the state in which a study's files have just been read."""
    draft = read_draft(files[PLAN_FILE])
    return BuilderState(name=name, files=dict(files), draft=draft, values=draft.values or {}, **others)


def with_file(state: BuilderState, name: str, text: str, typed: Typed | None = None) -> BuilderState:
    """Return the state after one of the texts was changed."""
    state = replace(state, files={**state.files, name: text}, typed=typed or state.typed)
    if name != PLAN_FILE:
        return state
    draft = read_draft(text)
    return replace(state, draft=draft, values=state.values if draft.values is None else draft.values)


def with_choice(state: BuilderState, path: str, value: Any) -> BuilderState:
    """Return the state after a control was set: the plan's text says so then, and is otherwise as it was.

    Raises
    ------
    PlanError
        If the text cannot be read as it stands, so that nothing can be put into it.
    """
    if state.draft.values is None:
        raise PlanError(
            f"plan.yaml cannot be read just now: {state.draft.troubles[0].text}",
            kept="All that you wrote is kept",
            todo="correct that line first",
        )
    return with_file(state, PLAN_FILE, put(state.draft.text, changes_for(state.draft.values, path, value)))


def with_model(state: BuilderState, model: FoundModel) -> BuilderState:
    """Return the state once a base model is on this machine: its digest, and layers that it has, are in the plan."""
    state = replace(state, models=tuple((name, here or name == model.name) for name, here in state.models))
    plan = state.draft.plan
    if plan is None or plan.base_model.name != model.name or state.submitted:
        return state
    changes: dict[Path, Any] = {("base_model", "digest"): model.digest}
    if plan.lora.targets == model.wished != model.targets:
        changes["lora", "targets"] = list(model.targets)
    return with_file(state, PLAN_FILE, put(state.draft.text, changes))
