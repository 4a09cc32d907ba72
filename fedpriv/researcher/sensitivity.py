"""The sensitivity map of a study: which tensors stay sealed in a hybrid plan, decided on made-up notes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from fedpriv.clinical import write_mock
from fedpriv.errors import ConfigError, PlanError, TrainingError
from fedpriv.files import write_json
from fedpriv.leakage import LeakageRate
from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.leakage.by_tensor import leakage_by_tensor
from fedpriv.leakage.telling import common_count, passage_length
from fedpriv.researcher.study import Study
from fedpriv.study import Plan
from fedpriv.study.averaging import turns_of
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice, ProtectionLevel
from fedpriv.training.adapter import lora_layout
from fedpriv.training.base_model import LocalModel
from fedpriv.training.examples import Example, encode, read_lines
from fedpriv.training.sensitivity import Sensitivity, adapter_after_a_round, measure_sensitivity

MapBasis = Literal["spread", "attack"]
"""What a map is made by: how much gradients differ from note to note, or what an attack names from each tensor."""

MAP_FILE = "sensitivity.json"
_READ_TOKENS = 512
"""Of a made-up note: what is read from its middle is worth as much as what is read from its beginning."""

_TRIES = 20
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
        Its part of the whole spread, or of all that the attack names; the shares of a map add up to 1.
    leaks : bool
        Whether the attack names more from this tensor alone than by chance; False in a map by spread.
    """

    tensor: str
    parameters: int
    share: float
    leaks: bool = False


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What the attack on single tensors named.

    Attributes
    ----------
    rates : dict of LeakageRate
        For each tensor, from plain gradients of single passages in which it alone is visible.
    notes : int
        How many passages were attacked.
    steps : int
        Optimiser steps that were taken first.
    """

    rates: dict[str, LeakageRate]
    notes: int
    steps: int


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
    measured : Sensitivity or Attacked
        What the shares come from.
    """

    shares: tuple[TensorShare, ...]
    seal: float
    level: ProtectionLevel
    measured: Sensitivity | Attacked

    @property
    def by(self) -> MapBasis:
        """What the map is made by."""
        return "attack" if isinstance(self.measured, Attacked) else "spread"

    @property
    def sealed(self) -> tuple[TensorShare, ...]:
        """The fewest tensors, most sensitive first, whose shares add up to at least ``seal``, and all that leak."""
        total, kept = 0.0, []
        for share in self.shares:
            if total >= self.seal - 1e-12 and not share.leaks:
                continue
            kept.append(share)
            total += share.share
        return tuple(kept)

    @property
    def others(self) -> tuple[TensorShare, ...]:
        """The tensors that get ``level``."""
        sealed = {share.tensor for share in self.sealed}
        return tuple(share for share in self.shares if share.tensor not in sealed)

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
            "sensitivity_version": 2,
            "by": self.by,
            "notes": self.measured.notes,
            "steps": self.measured.steps,
            "seal": self.seal,
            "level": self.level,
            "sealed_share": sum(share.share for share in self.sealed),
            "tensors": [
                {
                    "tensor": share.tensor,
                    "parameters": share.parameters,
                    **_measured(self.measured, share.tensor),
                    "share": share.share,
                    "level": "sealed" if share.tensor in sealed else self.level,
                }
                for share in self.shares
            ],
        }


def _measured(measured: Sensitivity | Attacked, tensor: str) -> dict[str, Any]:
    if isinstance(measured, Sensitivity):
        return {"spread": measured.spread[tensor]}
    rate = measured.rates[tensor].above_chance
    return {} if rate is None else {"named": rate.value, "low": rate.low, "high": rate.high}


def sensitivity_map(
    plan: Plan,
    model: LocalModel,
    *,
    by: MapBasis = "spread",
    seal: float = 0.9,
    level: ProtectionLevel = "masked",
    notes: int = 16,
    examples: Path | None = None,
    threads: int = 1,
    report: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> SensitivityMap:
    """Measure which tensors tell made-up notes apart or give their tokens away, and choose which of them stay sealed.

    *Assumption*: what tells mock notes apart tells real ones apart; the mock notes have the real ones' form, not their
    content. It is a guide for a hybrid plan, no guarantee: only ``sealed`` for all tensors needs no such assumption.

    Parameters
    ----------
    plan : Plan
        Of a study that may still be a draft.
    model : LocalModel
        The plan's base model.
    by : {"spread", "attack"}
        How tensors are compared. By ``attack``, every tensor that gives tokens away stays sealed, whatever ``seal`` is.
    seal : float
        Part of the whole spread, or of all that is named, whose tensors stay sealed, above 0 and up to 1.
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
        If ``seal`` is out of range, ``level`` is the one of the sealed tensors, or ``notes`` are too few for an attack.
    TrainingError, ModelError
        See :func:`~fedpriv.training.sensitivity.measure_sensitivity`. Also if the attack fails where it must succeed,
        or names nothing from any tensor.
    """
    if not 0 < seal <= 1:
        raise ConfigError(f"--seal is {seal}", todo="choose a part above 0 and up to 1, such as 0.9")
    if level == "sealed":
        raise ConfigError("The less sensitive tensors would be sealed too", todo="choose another --level, or no rules")
    with tempfile.TemporaryDirectory() as scratch:
        if examples is None:
            write_mock(Path(scratch) / "mock", seed=MOCK_SEED)
            examples = Path(scratch) / "mock" / "examples.jsonl"
        measure = _spreads if by == "spread" else _attacked
        measured, values = measure(plan, model, examples, notes=notes, threads=threads, report=report)
    sizes = {name: prod(shape) for name, shape in lora_layout(model.folder, plan.lora).items()}
    sent = turns_of(plan.averaging, values)  # a rule about a tensor that no round sends is an error
    total = sum(values[name] for name in sent)
    if not total > 0:
        raise TrainingError(
            "The attack names nothing from any tensor that this plan sends, so that it cannot rank them",
            todo="take more notes, or measure with --by spread",
        )
    leaking = measured.rates if isinstance(measured, Attacked) else {}
    shares = [
        TensorShare(
            tensor=name,
            parameters=sizes[name],
            share=values[name] / total,
            leaks=name in leaking and _leaks(leaking[name]),
        )
        for name in sent
    ]
    shares.sort(key=lambda share: (-share.share, share.tensor))
    return SensitivityMap(shares=tuple(shares), seal=seal, level=level, measured=measured)


_Found = tuple[Sensitivity | Attacked, dict[str, float]]
_Report = Callable[[str, int, int], None]


def _spreads(plan: Plan, model: LocalModel, examples: Path, *, notes: int, threads: int, report: _Report) -> _Found:
    """Return how much the gradients of single notes differ in each tensor."""
    found = measure_sensitivity(
        model.folder,
        examples,
        lora=plan.lora,
        training=plan.training,
        notes=notes,
        threads=threads,
        report=report,
    )
    return found, found.spread


def _attacked(plan: Plan, model: LocalModel, examples: Path, *, notes: int, threads: int, report: _Report) -> _Found:
    """Return what the attack names from each tensor alone: every second note is public, passages of others attacked."""
    if notes < LEAST_TRIALS:
        raise ConfigError(f"{notes} notes are too few to attack", todo=f"take --notes {LEAST_TRIALS} or more")
    training, layout = plan.training, lora_layout(model.folder, plan.lora)
    texts = encode(model.folder, read_lines(examples), max_tokens=max(_READ_TOKENS, training.max_tokens))
    common = common_count(_vocabulary(model, plan))
    width = next(shape[-1] for name, shape in layout.items() if name.endswith(".lora_A.weight"))
    length = passage_length(width, training.max_tokens)
    counts = Counter(token for text in texts[::2] for token in text)
    usual = frozenset(token for token, _ in counts.most_common(common))
    passages = _passages(texts[1::2], notes, length, usual=usual, seed=training.seed)
    adapter = adapter_after_a_round(
        model.folder, examples, lora=plan.lora, training=training, threads=threads, report=report
    )
    rates = leakage_by_tensor(
        model.folder,
        plan.lora,
        adapter,
        passages=passages,
        public=texts[::2],
        common=common,
        report=lambda done, total: report("measuring", done, total),
    )
    if not all(rate.measured for rate in rates.values()):
        raise TrainingError(
            "The attack fails where it must succeed, so that it measures nothing here",
            todo="give more or longer notes, or measure with --by spread",
        )
    found = Attacked(rates=rates, notes=len(passages), steps=training.steps)
    return found, {name: max(0.0, rate.above_chance.value) for name, rate in rates.items() if rate.above_chance}


def _leaks(rate: LeakageRate) -> bool:
    return rate.above_chance is not None and rate.above_chance.above_zero


def _passages(notes: list[Example], count: int, length: int, *, usual: frozenset[int], seed: int) -> list[Example]:
    """Cut passages of ``length`` tokens at random places out of notes, as far as can be each with an unusual token."""
    long = [note for note in notes if len(note) >= length]
    if not long:
        raise TrainingError(f"No note has {length} tokens", todo="give longer notes, or measure with --by spread")
    rng = np.random.default_rng(seed)
    cut: list[Example] = []
    for _ in range(_TRIES * count):
        note = long[int(rng.integers(len(long)))]
        start = int(rng.integers(0, len(note) - length + 1))
        cut.append(Example(note.ids[start : start + length]))
    cut.sort(key=lambda passage: not set(passage[:-1]) - usual)
    return cut[:count]


def _vocabulary(model: LocalModel, plan: Plan) -> int:
    from fedpriv.training.model import load_model

    embeddings: Any = load_model(model.folder, plan.lora).get_input_embeddings()
    return int(embeddings.weight.shape[0])


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
