"""The settings of a plan that a form offers: what each can be, whether it has a meaning now, and what belongs to it.

Ranges, choices and explanations are those of the plan's own model, so that form and plan cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedpriv.study import Plan
from fedpriv.study.aggregation import RULES_WITH_LINKS, WEIGHTS_IN_WORDS
from fedpriv.study.plan import ANSWER_METRICS
from fedpriv.study.privacy import PRIVATE_BATCH, PRIVATE_RATE, PRIVATE_TARGETS
from fedpriv.study.protection_choice import QUANTISED, WHO_SEES
from fedpriv.study.task import DEFAULT_WINDOW_HOURS, SUMMARY
from fedpriv.widgets.plan_text import Path

NO_PRIVACY = "none"
_FIRST_EPSILON = 8.0

Kind = Literal["choice", "whole", "number", "text"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One control.

    Attributes
    ----------
    path : str
        Of the setting, such as ``training.rounds``.
    group, label : str
        Below which heading it stands, and how it is called there.
    kind : str
        What it takes.
    options : tuple of (str, str)
        Of a choice: each value with what it means; those of the base model are this machine's.
    least, most : float or None
        Of a number.
    above : bool
        Whether ``least`` itself is too little.
    optional : bool
        Whether it may be left empty.
    default : JSON
        What it is where the plan does not say.
    words : str
        What it means.
    """

    path: str
    group: str
    label: str
    kind: Kind
    options: tuple[tuple[str, str], ...] = ()
    least: float | None = None
    most: float | None = None
    above: bool = False
    optional: bool = False
    default: Any = None
    words: str = ""

    @property
    def place(self) -> Path:
        """The path as its parts."""
        return tuple(self.path.split("."))


_OFFERED: tuple[tuple[str, str, str], ...] = (
    ("title", "Task", "title"),
    ("task.kind", "Task", "what is learned"),
    ("task.window_hours", "Task", "hours after admission"),
    ("base_model.name", "Task", "base model"),
    ("training.rounds", "Training", "rounds"),
    ("training.steps", "Training", "steps a round"),
    ("training.batch_size", "Training", "examples a step"),
    ("training.max_tokens", "Training", "tokens of an example"),
    ("training.learning_rate", "Training", "learning rate"),
    ("training.proximal", "Training", "FedProx mu"),
    ("training.max_seconds", "Training", "seconds a round, at most"),
    ("lora.rank", "Training", "LoRA rank"),
    ("lora.alpha", "Training", "LoRA alpha"),
    ("protection.level", "Protection", "level"),
    ("protection.bits", "Protection", "bits of a value"),
    ("privacy.unit", "Protection", "differential privacy"),
    ("privacy.epsilon", "Protection", "epsilon of the study"),
    ("aggregation.weights", "Sum", "weights"),
    ("aggregation.alpha", "Sum", "alpha"),
    ("aggregation.largest_share", "Sum", "largest share"),
    ("aggregation.averaging", "Sum", "factors that are sent"),
    ("aggregation.server.optimizer", "Sum", "what the mean is added by"),
    ("schedule.mode", "Schedule", "mode"),
    ("schedule.buffer", "Schedule", "updates that make a sum"),
    ("schedule.quorum", "Schedule", "quorum"),
    ("schedule.patience_s", "Schedule", "patience in seconds"),
    ("schedule.late_updates", "Schedule", "late updates"),
    ("schedule.local_steps", "Schedule", "local steps"),
)
_WORDS: dict[str, Mapping[str, str]] = {
    "aggregation.weights": {rule: words for rule, words in WEIGHTS_IN_WORDS.items() if rule != "custom"},
    "protection.level": {str(level): words for level, words in WHO_SEES.items()},
    "privacy.unit": {NO_PRIVACY: "none", "patient": "of each patient", "domain": "of a domain's data as a whole"},
}
"""Choices in words; a function of weights of one's own is given in code, not on a form."""


def _made() -> dict[str, Field]:
    schema = Plan.model_json_schema()
    return {path: _field(path, group, label, _at(schema, path)) for path, group, label in _OFFERED}


def _at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the JSON schema of one setting, with all that its references and alternatives say."""
    found: dict[str, Any] = {"properties": schema["properties"]}
    for name in path.split("."):
        found = _whole(found["properties"][name], schema)
    return found


def _whole(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        part = {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part}
    others = [other for other in part.get("anyOf", ()) if other.get("type") != "null"]
    if others:
        part = {**_whole(others[0], schema), **part, "optional": len(others) < len(part["anyOf"])}
    return part


def _field(path: str, group: str, label: str, found: dict[str, Any]) -> Field:
    kinds: dict[str, Kind] = {"integer": "whole", "number": "number", "string": "text"}
    words = _WORDS.get(path) or dict.fromkeys(found.get("enum", ()), "")
    return Field(
        path=path,
        group=group,
        label=label,
        kind="choice" if words or path == "base_model.name" else kinds[found["type"]],
        options=tuple(words.items()),
        least=found.get("minimum", found.get("exclusiveMinimum")),
        most=found.get("maximum"),
        above="exclusiveMinimum" in found,
        optional=bool(found.get("optional")),
        default=NO_PRIVACY if path == "privacy.unit" else found.get("default"),
        words=found.get("description", ""),
    )


FIELDS: dict[str, Field] = _made()
"""Every control by its path, in the order of the form."""


def value_of(values: Mapping[str, Any], path: str) -> Any:
    """Return a setting as a text of a plan has it, or the default that it has there."""
    found: Any = values
    for name in FIELDS[path].place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return FIELDS[path].default if found is None else found


def without_meaning(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that have no meaning beside the others, each with why."""

    def now(path: str) -> Any:
        return value_of(values, path)

    unit, buffered = now("privacy.unit"), now("schedule.mode") == "buffered"
    checks = {
        "task.window_hours": (now("task.kind") != "mortality", "only for the task mortality"),
        "training.proximal": (unit == "patient", "not with privacy of each patient"),
        "protection.bits": (now("protection.level") not in QUANTISED, "only for the levels sealed and masked"),
        "privacy.epsilon": (unit == NO_PRIVACY, "only with differential privacy"),
        "aggregation.alpha": (now("aggregation.weights") not in RULES_WITH_LINKS, "only for weights by links"),
        "aggregation.averaging": (unit == "patient", "with privacy of each patient always b_only"),
        "schedule.buffer": (not buffered, "only in mode buffered"),
        "schedule.quorum": (buffered, "only in mode synchronous"),
        "schedule.patience_s": (now("schedule.quorum") is None, "only with a quorum"),
        "schedule.late_updates": (now("schedule.quorum") is None or buffered, "only with a quorum"),
        "schedule.local_steps": (buffered or unit != NO_PRIVACY, "only in mode synchronous without privacy"),
    }
    return {path: why for path, (off, why) in checks.items() if off}


def changes_for(values: Mapping[str, Any], path: str, value: Any) -> dict[Path, Any]:
    """Return what a person's choice changes: the setting, and what would have no meaning beside it any more.

    Parameters
    ----------
    values : Mapping[str, Any]
        The plan's text as it was read.
    path : str
        One of :data:`FIELDS`.
    value : JSON
        What was chosen; it is not checked here.
    """
    place = FIELDS[path].place
    match path:
        case "privacy.unit":
            wanted = _privacy(values, value)
        case "base_model.name":
            wanted = {place: value, ("base_model", "digest"): None}
        case "task.kind":
            wanted = {place: value, **_task(values, value)}
        case "protection.level" | "protection.bits":
            wanted = {place: value, **_bits_choices(values, path, value)}
        case "aggregation.weights" if value not in RULES_WITH_LINKS:
            wanted = {place: value, ("aggregation", "alpha"): FIELDS["aggregation.alpha"].default}
        case "aggregation.server.optimizer":
            wanted = {("aggregation", "server"): {"optimizer": value}}
        case "schedule.mode":
            wanted = {place: value, **_schedule(values, buffered=value == "buffered")}
        case "schedule.quorum" if value is None:
            wanted = {place: None, **_defaults("schedule.patience_s", "schedule.late_updates")}
        case _:
            wanted = {place: value}
    return {where: new for where, new in wanted.items() if where == place or _differs(values, where, new)}


def _differs(values: Mapping[str, Any], place: Path, new: Any) -> bool:
    """Say whether a setting is not what is wanted; one that is not there has its default."""
    found: Any = values
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    field = FIELDS.get(".".join(place))
    return new != (field.default if found is None and field is not None else found)


def _defaults(*paths: str) -> dict[Path, Any]:
    return {FIELDS[path].place: FIELDS[path].default for path in paths}


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _task(values: Mapping[str, Any], kind: Any) -> dict[Path, Any]:
    metrics = [name for name in _list(values.get("metrics")) if name not in ANSWER_METRICS]
    notes = _list(_section(values, "task").get("notes"))
    changes: dict[Path, Any] = {("task", "window_hours"): DEFAULT_WINDOW_HOURS if kind == "mortality" else None}
    if metrics:
        changes["metrics",] = metrics if kind == "language_modelling" else [*metrics, *ANSWER_METRICS]
    if kind == "mortality" and SUMMARY in notes:
        changes["task", "notes"] = None
    return changes


def _bits_choices(values: Mapping[str, Any], path: str, value: Any) -> dict[Path, Any]:
    """Take away the bits among which a round may choose, where they do not fit any more."""
    choices = _list(_section(values, "protection").get("bits_choices"))
    fits = value in QUANTISED if path == "protection.level" else value in choices
    return {} if fits or not choices else {("protection", "bits_choices"): []}


def _schedule(values: Mapping[str, Any], *, buffered: bool) -> dict[Path, Any]:
    if not buffered:
        return {("schedule", "buffer"): None}
    domains = len(_list(values.get("cohort")))
    others = _defaults("schedule.patience_s", "schedule.late_updates", "schedule.local_steps")
    return {("schedule", "buffer"): max(2, (domains + 1) // 2), ("schedule", "quorum"): None, **others}


def _privacy(values: Mapping[str, Any], unit: Any) -> dict[Path, Any]:
    """Return a section for a unit, and what a study with privacy does well to begin with."""
    if unit == NO_PRIVACY:
        return {("privacy",): None}
    before = _section(values, "privacy")
    changes: dict[Path, Any] = {
        ("privacy",): {"unit": unit, "epsilon": before.get("epsilon", _FIRST_EPSILON)},
        ("schedule", "mode"): "synchronous",
        ("schedule", "buffer"): None,
        ("schedule", "local_steps"): "same",
    }
    if unit == "patient":
        changes |= {
            ("training", "batch_size"): PRIVATE_BATCH,
            ("training", "learning_rate"): PRIVATE_RATE,
            ("training", "proximal"): 0.0,
            ("lora", "dropout"): 0.0,
            ("lora", "use_dora"): False,
            ("aggregation", "averaging"): None,
        }
        if set(PRIVATE_TARGETS) <= set(map(str, _list(_section(values, "lora").get("targets")))):
            changes["lora", "targets"] = list(PRIVATE_TARGETS)
    return changes
