"""Choices of a draft's plan that a screen offers: what each can be, what it is now, and what an update then weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fedpriv.domain.estimates import tensor_sizes
from fedpriv.errors import PlanError, ProtectionError
from fedpriv.protection.sizes import update_bytes
from fedpriv.researcher.study import Study
from fedpriv.study import Plan, load_yaml, parse_plan
from fedpriv.study.aggregation import WEIGHTS_IN_WORDS, WeightRule
from fedpriv.study.averaging import turns_of
from fedpriv.study.protection_choice import QUANTISED, ProtectionLevel
from fedpriv.study.request import PLAN_FILE
from fedpriv.widgets.plan_fields import changes_for
from fedpriv.widgets.plan_text import put

Choice = Literal["weights", "alpha", "mode", "level", "bits", "steps", "rounds"]

OFFERED_BITS = (4, 6, 8, 10, 12, 16)
OFFERED_WEIGHTS: tuple[WeightRule, ...] = tuple(rule for rule in WEIGHTS_IN_WORDS if rule != "custom")
"""A function of the researcher's own is given in code, not on a screen."""

_PATH: dict[Choice, str] = {
    "weights": "aggregation.weights",
    "alpha": "aggregation.alpha",
    "mode": "schedule.mode",
    "level": "protection.level",
    "bits": "protection.bits",
    "steps": "training.steps",
    "rounds": "training.rounds",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the real planner says of a plan's updates.

    Attributes
    ----------
    parameters : int
        Numbers that one update holds.
    by_choice : mapping of (level, bits) to int
        Bytes of one update at each level and number of bits; bits are 0 where a level has none.
    """

    parameters: int
    by_choice: Mapping[tuple[str, int], int]

    @property
    def fp32_bytes(self) -> int:
        """Of the same numbers as plain float32."""
        return 4 * self.parameters


def changed(text: str, choice: Choice, value: float | str) -> str:
    """Return a plan's text with one choice made, and with what belongs to it; the rest stays, comments included.

    Raises
    ------
    PlanError
        If the value is none that can be chosen, or does not fit the rest of the plan.
    """
    if isinstance(value, float) and value.is_integer() and choice != "alpha":
        value = int(value)  # a page knows one kind of number
    values = load_yaml(text, source=PLAN_FILE)
    new = put(text, changes_for(values, _PATH[choice], value))
    parse_plan(new)
    return new


def choose(study: Study, choice: Choice, value: float | str) -> str:
    """Make a choice in a draft's ``plan.yaml``, and say so.

    Raises
    ------
    ExistsError
        If the study was submitted: its plan is never edited.
    PlanError
        If it does not fit; nothing is changed then.
    """
    path = study.folder.root / PLAN_FILE
    study.rewrite(changed(path.read_text(encoding="utf-8"), choice, value))
    return f"plan.yaml: {choice} {value:g}" if isinstance(value, float) else f"plan.yaml: {choice} {value}"


def sizes_of(plan: Plan) -> Sizes | None:
    """Return what updates weigh at each choice; None where the base model is not here yet.

    Assumption: the plan's rules on single tensors stay; levels that cannot carry the plan's sum are left out.
    """
    try:
        tensors = tensor_sizes(plan)
        if not tensors:
            return None
        turns = turns_of(plan.averaging, tensors)
    except PlanError:
        return None
    sent = {name: tensors[name] for name in turns}
    found = {}
    for level in get_args(ProtectionLevel):
        for bits in OFFERED_BITS if level in QUANTISED else (0,):
            protection = plan.protection.model_copy(update={"level": level, "bits": bits or plan.protection.bits})
            try:
                size = update_bytes(protection, tensors=sent, turns=turns, clients=len(plan.cohort))
            except ProtectionError:
                continue
            found[level, bits] = size
    return Sizes(parameters=sum(sent.values()), by_choice=found)
