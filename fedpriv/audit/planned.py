"""What an audit looks at in a plan: which round, with which rules, and with which other privacy."""

from __future__ import annotations

from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ConfigError
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.study.privacy import PrivacyChoice, PrivacyUnit
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import Layout


def within(protection: ProtectionChoice, sent: Layout) -> ProtectionChoice:
    """Leave out rules about tensors that this round does not send."""
    rules = tuple(rule for rule in protection.rules if any(rule.matches(name) for name in sent))
    return protection.model_copy(update={"rules": rules})


def newest_adapter(folder: StudyFolder) -> int | None:
    """Return the last round whose adapter is here; None where there is none but the first."""
    numbers = [int(path.stem) for path in folder.adapters.glob("[0-9][0-9][0-9][0-9].safetensors")]
    return max(numbers, default=0) or None


def round_to_look_at(plan: Plan, layout: Layout, following: int) -> int:
    """Return the next round, or where factors take turns the next that sends the first ones, which tell most."""
    sent = trained_tensors(plan.averaging, layout, following)
    return following if any(".lora_A." in name for name in sent) or plan.averaging != "alternate" else following + 1


def with_privacy(plan: Plan, epsilon: float) -> Plan:
    """Return the plan with another epsilon: of its own unit, else by patients, or by domains where that cannot be.

    Raises
    ------
    ConfigError
        If the epsilon is out of range, or goes with neither.
    """
    units: list[PrivacyUnit] = [plan.privacy.unit] if plan.privacy else ["patient", "domain"]
    for unit in units:
        try:
            privacy = PrivacyChoice(epsilon=epsilon, unit=unit)
            changed = plan.model_copy(update={"privacy": privacy})
            return Plan.model_validate(changed.model_dump())
        except ValueError:
            continue
    raise ConfigError(f"An epsilon of {epsilon:g} does not go with this plan", todo="choose one above 0, up to 100")


def steps_in_words(plan: Plan) -> str:
    """Return what a local round of a plan does, in words."""
    training, privacy = plan.training, plan.privacy
    kind = "of DP-SGD" if privacy is not None and privacy.unit == "patient" else "of AdamW"
    plural = "" if training.steps == 1 else "s"
    return f"{training.steps} step{plural} {kind} with the learning rate {training.learning_rate:g}"
