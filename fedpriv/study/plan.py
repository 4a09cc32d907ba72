"""The plan: the declarative half of a study, validated, frozen, and readable by a data owner."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fedpriv.errors import PlanError

MAX_PLAN_BYTES = 256 * 1024
MAX_YAML_DEPTH = 16

Email = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._+-]{0,63}@[a-z0-9][a-z0-9.-]{0,127}$")]
"""Lower-case and without any character that means something in a path, a shell or HTML: emails become folder names."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ProtectionLevel = Literal["sealed", "ckks", "plain"]
MetricName = Literal["train_loss", "heldout_loss", "heldout_tokens", "train_tokens", "examples", "heldout_examples"]


_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""What Unicode calls printable although nothing is seen: fillers, blanks and variation selectors."""


def is_invisible(character: str) -> bool:
    """Return whether a reader cannot see ``character``; line ends and tabs are seen."""
    return not (character.isprintable() or character in "\n\r\t") or _BLANK.match(character) is not None


def _visible_line(text: str) -> str:
    if any(is_invisible(character) or character in "\n\r\t" for character in text):
        raise ValueError("it holds a line break or an invisible character")
    return text


Title = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_visible_line)]
"""One line that can be shown to a data owner as it is."""

SectionT = TypeVar("SectionT", bound="BaseModel")


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class BaseModelChoice(Section):
    """Which public language model all domains start from."""

    name: Slug = Field(description="name in fedpriv's list of models, such as smollm2-135m-instruct or tiny")
    digest: Sha256 | None = Field(
        default=None, description="SHA-256 of its safetensors weights; a domain with others refuses"
    )


class LoraChoice(Section):
    """The LoRA adapter that is trained (Hu et al. 2021); the base model stays frozen."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")], ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, max_length=16
    )


class TrainingChoice(Section):
    """What one domain does in one round."""

    rounds: int = Field(default=3, ge=1, le=1000)
    steps: int = Field(default=4, ge=1, le=100_000, description="optimiser steps a round")
    batch_size: int = Field(default=4, ge=1, le=1024, description="examples a step")
    max_tokens: int = Field(default=96, ge=8, le=32_768, description="an example is cut after so many tokens")
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    max_seconds: int = Field(default=900, ge=5, le=86_400, description="wall clock of one local round, in seconds")
    seed: int = Field(default=0, ge=0, lt=2**31)


class ProtectionChoice(Section):
    """How an update is protected before it leaves."""

    level: ProtectionLevel = "sealed"
    bits: int = Field(default=16, ge=8, le=16, description="bits of a quantised value (level sealed)")
    clip: float = Field(
        default=0.05, gt=0, le=10, description="largest magnitude of one parameter's update (level sealed)"
    )
    max_update_norm: float = Field(
        default=50.0, gt=0, le=1e6, description="the gatekeeper refuses an update of larger L2 norm"
    )


class AggregationChoice(Section):
    """How the updates are weighed in the sum."""

    weights: Literal["fedavg", "uniform"] = Field(
        default="fedavg", description="fedavg: by number of examples (McMahan 2017)"
    )


class MemberChoice(Section):
    """One domain of the cohort, pinned by the fingerprint of its public keys."""

    email: Email
    fingerprint: Fingerprint


class Plan(Section):
    """Everything about a study except its code; ``plan.yaml`` is this, as text."""

    fedpriv: Literal[1] = Field(default=1, description="version of this format")
    title: Title = "LoRA fine-tuning"
    dataset: Slug = "mimic-iii"
    researcher: MemberChoice
    cohort: tuple[MemberChoice, ...] = Field(min_length=2, max_length=64)
    base_model: BaseModelChoice
    lora: LoraChoice = LoraChoice()
    training: TrainingChoice = TrainingChoice()
    protection: ProtectionChoice = ProtectionChoice()
    aggregation: AggregationChoice = AggregationChoice()
    metrics: tuple[MetricName, ...] = Field(
        default=("train_loss", "heldout_loss", "heldout_tokens", "train_tokens", "examples", "heldout_examples"),
        description="the only numbers that may leave beside the sealed update",
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Plan:
        emails = [member.email for member in self.cohort]
        if len(set(emails)) != len(emails):
            raise ValueError("a domain stands in the cohort twice")
        if len({member.fingerprint for member in self.cohort}) != len(emails):
            raise ValueError("two domains of the cohort have the same fingerprint")
        if self.researcher.email in emails:
            raise ValueError("the researcher cannot be a domain of the cohort")
        if missing := {"examples", "heldout_loss", "heldout_tokens"} - set(self.metrics):
            raise ValueError(f"metrics must list {', '.join(sorted(missing))}: rounds are weighed and judged by them")
        return self

    @property
    def emails(self) -> tuple[str, ...]:
        """The cohort's addresses, sorted: the order every party uses."""
        return tuple(sorted(member.email for member in self.cohort))

    @property
    def key_maker(self) -> str:
        """The domain that makes the homomorphic key: the first of the cohort in sorted order."""
        return self.emails[0]

    def fingerprint_of(self, email: str) -> str:
        """Return the pinned fingerprint of a member or of the researcher.

        Raises
        ------
        KeyError
            If ``email`` has no part in this plan.
        """
        for member in (*self.cohort, self.researcher):
            if member.email == email:
                return member.fingerprint
        raise KeyError(email)

    def to_yaml(self) -> str:
        """Return the plan as the text that is submitted, read and hashed."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_PlanDumper, sort_keys=False, allow_unicode=True)


class _PlanDumper(yaml.SafeDumper):
    """A safe dumper that quotes text that :class:`_UniqueKeyLoader` would read as a number."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which would let a reader and the machine see different plans."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.YAMLError(f"the key {key!r} stands twice")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
for _class in (_UniqueKeyLoader, _PlanDumper):  # 2e-3 is a number in YAML 1.2 and JSON, but text in PyYAML's YAML 1.1
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
    )


def _refuse_aliases_and_depth(text: str) -> None:
    """Look at a text's structure as it is read: PyYAML needs hours for some deep ones of permitted size."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_YAML_DEPTH} deep")


def load_yaml(text: str, *, source: str) -> Any:
    """Parse YAML without aliases, anchors, tags or repeated keys.

    Raises
    ------
    PlanError
        If it is too large, is not such YAML, or is not a mapping.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PLAN_BYTES:
        raise PlanError(f"{source} is larger than {MAX_PLAN_BYTES} bytes", todo="keep only the plan in it")
    try:
        _refuse_aliases_and_depth(text)
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        where = " ".join(str(error).split())
        raise PlanError(f"{source} is not readable YAML: {where}", todo="correct that line") from error
    if not isinstance(value, dict):
        raise PlanError(f"{source} holds no settings", todo="see docs/plan.md for an example")
    return value


def parse_plan(text: str, *, source: str = "plan.yaml") -> Plan:
    """Read a plan from YAML text.

    Raises
    ------
    PlanError
        With the path of every wrong setting in words.
    """
    return validate_section(Plan, load_yaml(text, source=source), source=source)


def load_plan(path: Path) -> Plan:
    """Read a plan from a file; see :func:`parse_plan`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} cannot be read ({error})", todo="give the path of a plan.yaml") from error
    return parse_plan(text, source=path.name)


def validate_section(model: type[SectionT], value: Any, *, source: str) -> SectionT:
    """Validate ``value`` (parsed YAML or JSON) as ``model``, strictly: no text where a number belongs.

    Raises
    ------
    PlanError
        Naming each wrong setting by its path, such as ``training > rounds``.
    """
    try:
        return model.model_validate_json(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise PlanError(
                f"{source}: {in_words(error)}", kept="Nothing was changed", todo="correct it and try again"
            ) from error
        raise PlanError(f"{source} holds a value that is no number, text or list ({error})") from error


def in_words(error: ValidationError) -> str:
    """Return a validation error as one line a person can act on."""
    return "; ".join(_problem_in_words(problem) for problem in error.errors(include_url=False)[:5])


def _problem_in_words(problem: Any) -> str:
    path = " > ".join(str(part + 1) if isinstance(part, int) else part for part in problem["loc"]) or "the whole"
    given = repr(problem.get("input"))
    given = given if len(given) <= 60 else given[:57] + "..."
    match problem["type"]:
        case "extra_forbidden":
            return f"{path}: there is no such setting"
        case "missing":
            return f"{path}: this setting is missing"
        case "value_error":
            return f"{path}: {problem['msg'].removeprefix('Value error, ')}"
        case kind if kind.startswith(("int", "float")):
            unit = _unit_of(problem["loc"])
            number = "a whole number" if kind.startswith("int") else "a number"
            return f"{path}: {number}{unit} is needed, not {given}"
        case _:
            message = problem["msg"]
            return f"{path}: {message[0].lower() + message[1:]}, not {given}"


def _unit_of(location: tuple[int | str, ...]) -> str:
    units = {"_seconds": "seconds", "_s": "seconds", "_bytes": "bytes", "_tokens": "tokens", "_mb": "megabytes"}
    name = str(location[-1]) if location else ""
    return next((f" of {unit}" for suffix, unit in units.items() if name.endswith(suffix)), "")
