"""The sensitivity map of a study: which tensors stay sealed in a hybrid plan, decided on made-up notes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

from fedpriv.clinical import write_mock
from fedpriv.errors import ConfigError, PlanError
from fedpriv.files import write_json
from fedpriv.researcher.study import Study
from fedpriv.study import Plan
from fedpriv.study.averaging import turns_of
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice, ProtectionLevel
from fedpriv.training.adapter import lora_layout
from fedpriv.training.base_model import LocalModel
from fedpriv.training.sensitivity import Sensitivity, measure_sensitivity

MAP_FILE = "sensitivity.json"
MOCK_SEED = 0
"""The seed of the mock notes that every domain shows."""


@dataclass(frozen=True, kw_only=True)
class TensorShare:
    """One tensor's part in telling notes apart.

    Attributes
    ----------
    tensor : str
        Its name.
    parameters : int
        Number of its parameters.
    share : float
        Its part of the whole spread; the shares of a map add up to 1.
    """

    tensor: str
    parameters: int
    share: float


@dataclass(frozen=True, kw_only=True)
class SensitivityMap:
    """The shares of all tensors, most sensitive first, and how they are divided.

    Attributes
    ----------
    shares : tuple of TensorShare
        Sorted by share, largest first.
    seal : float
        Part of the whole spread that stays sealed, above 0 and up to 1.
    level : str
        Level of the other tensors.
    measured : Sensitivity
        What the shares come from.
    """

    shares: tuple[TensorShare, ...]
    seal: float
    level: ProtectionLevel
    measured: Sensitivity

    @property
    def sealed(self) -> tuple[TensorShare, ...]:
        """The fewest tensors, most sensitive first, whose shares add up to at least ``seal``."""
        total, kept = 0.0, []
        for share in self.shares:
            if total >= self.seal - 1e-12:
                break
            kept.append(share)
            total += share.share
        return tuple(kept)

    @property
    def others(self) -> tuple[TensorShare, ...]:
        """The tensors that get ``level``."""
        return self.shares[len(self.sealed) :]

    def protection(self, before: ProtectionChoice) -> ProtectionChoice:
        """Return a plan's protection with this map: sealed by default, one rule for the others.

        The rule names what is *less* protected, so that a tensor that it forgets would be sealed.
        """
        names = tuple(sorted(share.tensor for share in self.others))
        rules = (LevelRule(tensors=names, level=self.level),) if names else ()
        return ProtectionChoice.model_validate({**dict(before), "level": "sealed", "rules": rules})

    def rules_text(self) -> str:
        """Return the settings to paste into ``plan.yaml``."""
        choice = self.protection(ProtectionChoice())
        rules = [{"level": rule.level, "tensors": list(rule.tensors)} for rule in choice.rules]
        return yaml.safe_dump({"protection": {"level": "sealed", "rules": rules}}, sort_keys=False)

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``sensitivity.json``."""
        sealed = {share.tensor for share in self.sealed}
        return {
            "sensitivity_version": 1,
            "notes": self.measured.notes,
            "steps": self.measured.steps,
            "seal": self.seal,
            "level": self.level,
            "sealed_share": sum(share.share for share in self.sealed),
            "tensors": [
                {
                    "tensor": share.tensor,
                    "parameters": share.parameters,
                    "spread": self.measured.spread[share.tensor],
                    "share": share.share,
                    "level": "sealed" if share.tensor in sealed else self.level,
                }
                for share in self.shares
            ],
        }


def sensitivity_map(
    plan: Plan,
    model: LocalModel,
    *,
    seal: float = 0.9,
    level: ProtectionLevel = "masked",
    notes: int = 16,
    examples: Path | None = None,
    threads: int = 1,
    report: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> SensitivityMap:
    """Measure which tensors tell made-up notes apart, and choose which of them stay sealed.

    *Assumption*: what tells mock notes apart tells real ones apart; the mock notes have the real ones' form, not their
    content. It is a guide for a hybrid plan, no guarantee: only ``sealed`` for all tensors needs no such assumption.

    Parameters
    ----------
    plan : Plan
        Of a study that may still be a draft.
    model : LocalModel
        The plan's base model.
    seal : float
        Part of the whole spread whose tensors stay sealed, above 0 and up to 1.
    level : str
        Level of the other tensors.
    notes : int
        How many single notes to measure.
    examples : Path, optional
        JSON lines of ``{"text": ...}`` that may be shown to anybody; by default the mock notes that domains show.
    threads : int
        Processor threads to use.
    report : Callable[[str, int, int], None]
        Called with the stage, what of it is done, and its total.

    Raises
    ------
    ConfigError
        If ``seal`` is out of range, or ``level`` is the one of the sealed tensors.
    TrainingError, ModelError
        See :func:`~fedpriv.training.sensitivity.measure_sensitivity`.
    """
    if not 0 < seal <= 1:
        raise ConfigError(f"--seal is {seal}", todo="choose a part above 0 and up to 1, such as 0.9")
    if level == "sealed":
        raise ConfigError("The less sensitive tensors would be sealed too", todo="choose another --level, or no rules")
    with tempfile.TemporaryDirectory() as scratch:
        if examples is None:
            write_mock(Path(scratch) / "mock", seed=MOCK_SEED)
            examples = Path(scratch) / "mock" / "examples.jsonl"
        measured = measure_sensitivity(
            model.folder,
            examples,
            lora=plan.lora,
            training=plan.training,
            notes=notes,
            threads=threads,
            report=report,
        )
    sizes = {name: prod(shape) for name, shape in lora_layout(model.folder, plan.lora).items()}
    sent = turns_of(plan.averaging, measured.spread)  # a rule about a tensor that no round sends is an error
    total = sum(measured.spread[name] for name in sent)
    shares = [TensorShare(tensor=name, parameters=sizes[name], share=measured.spread[name] / total) for name in sent]
    shares.sort(key=lambda share: (-share.share, share.tensor))
    return SensitivityMap(shares=tuple(shares), seal=seal, level=level, measured=measured)


def keep_map(study: Study, found: SensitivityMap) -> Path:
    """Write ``sensitivity.json`` into the study's folder and return its path."""
    path = study.folder.root / MAP_FILE
    write_json(path, found.as_json(), mode=0o644)
    return path


def write_into_draft(study: Study, found: SensitivityMap) -> Path:
    """Put the map's rules into the draft's ``plan.yaml`` in place of its level and rules; return where the old one is.

    Comments of the old plan are not carried over, so it is kept beside the new one.

    Raises
    ------
    ExistsError
        If the study was submitted: its plan is never edited.
    """
    study.require_draft()
    plan = study.plan
    try:
        changed = plan.model_copy(update={"protection": found.protection(plan.protection)})
    except ValueError as error:
        raise PlanError("These rules do not fit into a plan", todo="choose a larger --seal") from error
    return study.rewrite(changed.to_yaml())
