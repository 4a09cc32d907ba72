"""Options of ``fedpriv study new`` that are settings of a plan, and what is made of them.

None has a check of its own: the plan names a setting that is wrong, or does not fit the others, by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from fedpriv.study import Plan
from fedpriv.study.privacy import PRIVATE_BATCH, PRIVATE_RATE, PRIVATE_TARGETS, PrivacyChoice
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.study.task import DEFAULT_WINDOW_HOURS, TaskKind

_TASK = "What is learned"
_TRAINING = "What a round trains"
_PROTECTION = "How an update is protected"
_SUM = "How updates become a sum"
_SCHEDULE = "Who is waited for"
_UNIT = PrivacyChoice.model_fields["unit"].default


def _default_of(setting: str) -> Any:
    """Return a setting's default in a plan, such as that of ``training.rounds``."""
    section, *names = setting.split(".")
    value = Plan.model_fields[section].default
    for name in names:
        value = getattr(value, name)
    return value


def _option(panel: str | None, text: str, setting: str = "", default: Any = None) -> Any:
    """Return an option that may be left out, with the default that the plan's ``setting`` has then in its help."""
    shown = _default_of(setting) if setting else default
    return typer.Option(help=f"{text} {escape(f'[default: {shown}]')}" if shown else text, rich_help_panel=panel)


Title = Annotated[str | None, _option(None, "What data owners read first.", "title")]

Task = Annotated[
    str | None,
    _option(_TASK, f"What is learned from an admission: {', '.join(get_args(TaskKind))}.", "task.kind"),
]
Notes = Annotated[
    str | None,
    _option(
        _TASK,
        "Categories of notes to read, such as radiology,nursing; none: only the structured tables. By default what "
        "suits the task.",
    ),
]
WindowHours = Annotated[
    int | None, _option(_TASK, "What is known so many hours after admission (mortality).", default=DEFAULT_WINDOW_HOURS)
]
Template = Annotated[
    Path | None,
    _option(
        _TASK, "Your own NAME.txt that says how an admission is told; by default the stock one. See docs/tasks.md."
    ),
]

Rounds = Annotated[
    int | None, _option(_TRAINING, "How often all train and their updates are summed.", "training.rounds")
]
Steps = Annotated[int | None, _option(_TRAINING, "Optimiser steps of a domain in a round.", "training.steps")]
Proximal = Annotated[
    float | None,
    _option(
        _TRAINING,
        "FedProx's mu: holds a domain near where the round began, such as 0.1; for domains whose notes differ much.",
    ),
]

Protection = Annotated[
    str | None,
    _option(_PROTECTION, f"Level of all tensors: {', '.join(get_args(ProtectionLevel))}.", "protection.level"),
]
Bits = Annotated[
    int | None,
    _option(_PROTECTION, "Bits of a quantised value (sealed, masked), 4 to 16.", "protection.bits"),
]
BitsChoices = Annotated[
    str | None,
    _option(
        _PROTECTION,
        "Let each round choose among these, such as 4,6,10: fewer bits where links are slow. --bits is one of them.",
    ),
]
Epsilon = Annotated[
    float | None,
    _option(_PROTECTION, "Differential privacy: epsilon of the whole study at each domain, such as 8."),
]
PrivacyUnit = Annotated[
    str | None,
    _option(_PROTECTION, "What epsilon protects: patient, or domain (all of a domain's data).", default=_UNIT),
]

Weights = Annotated[
    str | None,
    _option(
        _SUM,
        "How much an update counts: fedavg (its domain's examples), uniform, paper (mean loss over the link's speed), "
        "paper-reciprocal (mean loss times the link's speed), inverse-loss; custom (a Python function).",
        "aggregation.weights",
    ),
]
Alpha = Annotated[
    float | None,
    _option(
        _SUM, "Exponent of the link's speed in paper and paper-reciprocal: 0 leaves links out.", "aggregation.alpha"
    ),
]
LargestShare = Annotated[
    float | None,
    _option(_SUM, "No domain counts for a larger share: the rest goes to the others.", "aggregation.largest_share"),
]
Averaging = Annotated[
    str | None,
    _option(
        _SUM,
        "Which of LoRA's factors a round trains and sends: both; b_only or alternate (half the bytes, and an exact "
        "mean). By default both, with --epsilon by patient b_only.",
    ),
]
Server = Annotated[
    str | None,
    _option(
        _SUM,
        "What the domains do with the mean: none (add it), momentum (FedAvgM), adam (FedAdam).",
        "aggregation.server.optimizer",
    ),
]
ServerRate = Annotated[
    float | None,
    _option(_SUM, "Its learning rate: by default 1 (momentum), or what a local round moves a parameter by (adam)."),
]

Mode = Annotated[
    str | None,
    _option(
        _SCHEDULE,
        "synchronous: a round sums the updates of all. buffered: of the first that are ready (FedBuff).",
        "schedule.mode",
    ),
]
Buffer = Annotated[int | None, _option(_SCHEDULE, "Updates that make a sum (with --mode buffered).")]
Quorum = Annotated[
    int | None,
    _option(
        _SCHEDULE,
        "So many updates make a round when others are late; without it every domain is waited for (synchronous).",
    ),
]
Patience = Annotated[
    int | None,
    _option(_SCHEDULE, "Seconds without progress after which a domain is late (with --quorum).", "schedule.patience_s"),
]
Late = Annotated[
    str | None,
    _option(
        _SCHEDULE,
        "What becomes of a late update: carry (into the next sum, discounted) or drop.",
        "schedule.late_updates",
    ),
]
Balanced = Annotated[
    bool,
    typer.Option(
        "--balanced",
        help="Fewer local steps on slow machines and links, so that all are ready together (synchronous).",
        rich_help_panel=_SCHEDULE,
    ),
]


def numbers(text: str | None) -> list[int | str] | None:
    """Return the numbers of ``4,6,10``; what is none stays text, which the plan refuses."""
    if text is None:
        return None
    return [int(part) if part.isascii() and part.isdigit() else part for part in map(str.strip, text.split(","))]


def names(text: str | None) -> list[str] | None:
    """Return the names of ``radiology,nursing`` in lower case; no name at all for ``none``."""
    if text is None:
        return None
    return [] if text.strip().lower() == "none" else [" ".join(part.lower().split()) for part in text.split(",")]


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that nobody gave (``None``), and without sections that hold no other."""
    inner = {name: given(value) if isinstance(value, dict) else value for name, value in settings.items()}
    return {name: value for name, value in inner.items() if value is not None and value != {}}


def suited_to_privacy(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with what a study with privacy by patients does well to begin with."""
    privacy = settings.get("privacy")
    if privacy is None or privacy.get("unit", _UNIT) != "patient":
        return settings
    training = settings.get("training", {}) | {"batch_size": PRIVATE_BATCH, "learning_rate": PRIVATE_RATE}
    return settings | {"lora": {"targets": list(PRIVATE_TARGETS)}, "training": training}
