"""A study that is being written, as the JSON value that its panel shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fedpriv.domain.finding import visible
from fedpriv.domain.summary import in_bytes, in_time
from fedpriv.domain.trial import DryRun
from fedpriv.errors import FedprivError
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.widgets.builder_state import BuilderState
from fedpriv.widgets.plan_fields import FIELDS, Field, value_of, without_meaning
from fedpriv.widgets.sheet import Folded, Part, Sheet, Table

_LEVEL_NAMES = {"fp32": "fp32, unprotected", "plain": "plain: signed, not hidden"}
_OUTCOME = {
    "passed": "It ran, and a domain's gatekeeper would let its update leave.",
    "refused": "It ran, and a domain's gatekeeper would stop its update.",
    "failed": "The code did not come to its end.",
}


def view_of(state: BuilderState) -> dict[str, Any]:
    """Return all that the page shows."""
    return {
        "name": state.name,
        "text": state.draft.text,
        "recipe": state.recipe,
        "others": sorted(set(state.files) - {PLAN_FILE, RECIPE_FILE}),
        "typed": asdict(state.typed),
        "readable": state.draft.values is not None,
        "valid": state.draft.plan is not None,
        "troubles": [asdict(trouble) for trouble in state.draft.troubles],
        "request_trouble": state.request_trouble(),
        "words": _words(state),
        "groups": _groups(state),
        "estimates": {
            "rows": [asdict(one) for part in ("sizes", "times", "privacy") for one in getattr(state.estimates, part)],
            "levels": _levels(state),
        },
        "saved": state.is_saved,
        "exists": state.kept is not None,
        "submitted": state.submitted,
        "standing": standing(state),
        "work": None if state.work is None else asdict(state.work),
        "notice": None if state.notice is None else asdict(state.notice),
        "trial": None if state.trial is None else _trial(state, state.trial),
    }


def standing(state: BuilderState) -> str:
    """Return in a sentence where the study stands."""
    if state.submitted:
        return "Submitted: the data owners have it, and it is not changed any more."
    if state.kept is None:
        return "Not saved yet: there is no study of this name."
    return "Saved; nothing was sent." if state.is_saved else "Changed since it was saved; nothing was sent."


def sheet_of(state: BuilderState) -> Sheet:
    """Return it as a sheet, for terminals and for pages without scripts."""
    plan = state.draft.plan
    parts: list[Part] = []
    if state.draft.troubles:
        wrong = tuple((f"line {one.line}" if one.line else "the whole", one.text) for one in state.draft.troubles)
        parts.append(Table(caption="What is not right yet", head=("where", "what"), rows=wrong))
    rows = [one for part in ("sizes", "times", "privacy") for one in getattr(state.estimates, part)]
    if rows and plan is not None:
        costs = tuple((one.name, one.value, one.how) for one in rows)
        parts.append(Table(caption="What it would cost", head=("what", "estimate", "how it was got"), rows=costs))
    parts.append(Folded(caption=PLAN_FILE, text=state.draft.text))
    title = f"Study {state.name}" + (f": {plan.title}" if plan is not None else "")
    return Sheet(title=title, note=standing(state), parts=tuple(parts))


def _groups(state: BuilderState) -> list[dict[str, Any]]:
    """Return the controls below their headings."""
    off = without_meaning(state.values)
    wrong = {trouble.path: trouble.text for trouble in state.draft.troubles}
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, field in FIELDS.items():
        control = asdict(field) | {
            "options": _options(field, state),
            "value": value_of(state.values, path),
            "off": off.get(path, ""),
            "wrong": wrong.get(path, ""),
        }
        groups.setdefault(field.group, []).append(control)
    return [{"name": name, "controls": controls} for name, controls in groups.items()]


def _options(field: Field, state: BuilderState) -> list[tuple[str, str]]:
    """Return a choice's options; what a text has that no form offers is one more."""
    if field.path == "base_model.name":
        options = [(name, "" if here else "not on this machine yet") for name, here in state.models]
    else:
        options = list(field.options)
    value = value_of(state.values, field.path)
    if field.kind == "choice" and value not in dict(options):
        options.append((str(value), "as the text says"))
    return options


def _levels(state: BuilderState) -> list[dict[str, Any]]:
    """Return an update at each level beside plain numbers, which are the first."""
    levels = state.estimates.levels
    return [
        {
            "name": _LEVEL_NAMES.get(level.level, f"{level.level}, {level.bits} bits" if level.bits else level.level),
            "bytes": level.bytes,
            "words": f"{in_bytes(level.bytes)}, {level.bytes / levels[0].bytes:.2f} times fp32",
        }
        for level in levels
    ]


def _words(state: BuilderState) -> list[str]:
    """Return what the plan means, as a data owner will read it."""
    plan = state.draft.plan
    if plan is None:
        return []
    privacy = plan.privacy.in_words() if plan.privacy else "no differential privacy"
    parts = [plan.task.in_words(), plan.schedule.in_words(), plan.protection.in_words(), privacy]
    parts += [f"updates count {plan.aggregation.in_words()}", plan.aggregation.server.in_words()]
    return [f"{part[0].upper()}{part[1:].rstrip('.')}." for part in parts if part]


def _trial(state: BuilderState, trial: DryRun) -> dict[str, Any]:
    """Return what the last try showed, as names with words."""
    rows = [("outcome", _OUTCOME[trial.outcome] + (f" {trial.reason}." if trial.reason else ""))]
    rows.append(("trained", f"{trial.steps} steps on {trial.examples} mock examples in {in_time(trial.seconds)}"))
    if trial.heldout_before is not None and trial.heldout_after is not None:
        losses = f"{trial.heldout_before:.4f} before, {trial.heldout_after:.4f} after"
        rows.append(("held-out loss", f"{losses} (of made-up texts: it says that the code learns, and no more)"))
    rows += [(name.replace("_", " "), f"{value:.5g}") for name, value in trial.metrics.items()]
    if trial.peak_memory_bytes:
        rows.append(("memory", f"{in_bytes(trial.peak_memory_bytes)} at most, base model included"))
    rows.append(("walls", trial.walls))
    if trial.tried:
        rows.append(("tried what training never needs", ", ".join(trial.tried)))
    try:
        current = state.request().study == trial.study
    except FedprivError:  # what is wrong with the text is shown beside it
        current = False
    return {
        "good": trial.outcome == "passed",
        "current": current,
        "rows": [(name, visible(words, 600)) for name, words in rows],
        "log": list(trial.log),
    }
