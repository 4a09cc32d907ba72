"""The plan: the declarative half of a study, validated, frozen, and readable by a data owner."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError, model_validator

from fedpriv.errors import PlanError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.averaging import Averaging
from fedpriv.study.privacy import UNNOISED_METRICS, PrivacyChoice
from fedpriv.study.schedule import ScheduleChoice
from fedpriv.study.section import Section

MAX_PLAN_BYTES = 256 * 1024
MAX_YAML_DEPTH = 16

MAX_COHORT = 256
"""Most domains of a study: what packing, energies of sums and the sizes of messages are laid out for."""

Email = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._+-]{0,63}@[a-z0-9][a-z0-9.-]{0,127}$")]
"""Lower-case and without any character that means something in a path, a shell or HTML: emails become folder names."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ProtectionLevel = Literal["sealed", "masked", "ckks", "ckks-tuned", "plain"]
"""From the strictest to none; `docs/plan.md` says what each one hides from whom."""

QUANTISED: tuple[ProtectionLevel, ...] = ("sealed", "masked")
"""The levels that round a value to ``bits`` bits."""

SecurityLevel = Literal["tc192", "tc256"]
MetricName = Literal["train_loss", "heldout_loss", "heldout_tokens", "train_tokens", "examples", "heldout_examples"]
REQUIRED_METRICS: frozenset[MetricName] = frozenset({"examples", "heldout_loss", "heldout_tokens"})
"""Without these no round can be weighed and judged."""


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
    batch_size: int = Field(
        default=4, ge=1, le=1024, description="examples a step; with privacy of unit patient, expected patients"
    )
    max_tokens: int = Field(default=96, ge=8, le=32_768, description="an example is cut after so many tokens")
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    max_seconds: int = Field(default=900, ge=5, le=86_400, description="wall clock of one local round, in seconds")
    seed: int = Field(default=0, ge=0, lt=2**31)
    proximal: float = Field(
        default=0.0, ge=0, le=1000, description="mu: how strongly a local round is held near where it began (FedProx)"
    )


TensorPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?!\[\]-]{1,200}$")]
"""A shell glob over the names of the adapter's tensors; nothing in it means something to a terminal or a page."""

_SEEN: dict[ProtectionLevel, str] = {
    "sealed": "nobody sees a single update, and only the domains open the sum",
    "masked": "the researcher sees their sum, but no single update",
    "ckks": "the researcher sees nothing, but a domain that got hold of a single update could read it",
    "ckks-tuned": "the researcher sees nothing, but a domain that got hold of a single update could read it",
    "plain": "the researcher sees EVERY SINGLE update",
}


class LevelRule(Section):
    """An exception from the default level, for some tensors of the adapter."""

    tensors: tuple[TensorPattern, ...] = Field(
        default=(), max_length=1024, description="names of tensors, with shell wildcards (* ? [...])"
    )
    layers: tuple[Annotated[int, Field(ge=0, le=9999)], ...] = Field(
        default=(), max_length=1024, description="numbers of transformer blocks, from 0"
    )
    level: ProtectionLevel
    bits: int | None = Field(
        default=None, ge=4, le=16, description="bits of a quantised value; by default those of protection"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> LevelRule:
        if bool(self.tensors) == bool(self.layers):
            raise ValueError("a rule needs either tensors or layers, and not both")
        if len(set(self.tensors)) != len(self.tensors) or len(set(self.layers)) != len(self.layers):
            raise ValueError("a rule names something twice")
        if self.bits is not None and self.level not in QUANTISED:
            raise ValueError(f"bits have no meaning at level {self.level}: leave them out")
        return self

    def matches(self, tensor: str) -> bool:
        """Say whether the rule is about the tensor of this name."""
        return any(names_tensor(what, tensor) for what in (*self.tensors, *self.layers))

    def in_words(self) -> str:
        """Return what the rule is about: its layers, or its patterns with the shortest, hence widest, first."""
        if self.layers:
            return f"layer{'s' if len(self.layers) > 1 else ''} {_few([str(n) for n in self.layers])}"
        return f"tensors matching {_few(sorted(self.tensors, key=len))}"


def names_tensor(what: str | int, tensor: str) -> bool:
    """Say whether a glob, or the number of a transformer block, is about the tensor of this name.

    Blocks are the ``.layers.N.`` of Llama, Mistral, Qwen and Gemma, or the ``.h.N.`` of GPT-2 and Falcon.
    """
    if isinstance(what, int):
        return f".layers.{what}." in tensor or f".h.{what}." in tensor
    return fnmatchcase(tensor, what)


def _few(names: Collection[str]) -> str:
    shown = list(names)[:4]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


class ProtectionChoice(Section):
    """How an update is protected before it leaves; with rules, tensor by tensor (a hybrid plan)."""

    level: ProtectionLevel = Field(default="sealed", description="the level of every tensor that no rule is about")
    bits: int = Field(default=10, ge=4, le=16, description="bits of a quantised value (levels sealed and masked)")
    bits_choices: tuple[Annotated[int, Field(ge=4, le=16)], ...] = Field(
        default=(),
        max_length=13,
        description="what a round's ticket may say in place of bits, for every tensor without bits of its own",
    )
    clip: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="largest magnitude of one parameter's update in round 1 (levels sealed and masked); "
        "by default training's learning_rate * steps",
    )
    security: SecurityLevel = Field(
        default="tc192", description="security of the encryption against classical attacks (level sealed)"
    )
    rules: tuple[LevelRule, ...] = Field(
        default=(), max_length=64, description="exceptions by tensor; the first rule that matches a tensor counts"
    )
    max_update_norm: float = Field(
        default=50.0, gt=0, le=1e6, description="the gatekeeper refuses an update of larger L2 norm"
    )

    @model_validator(mode="after")
    def _rules_can_be_reached(self) -> ProtectionChoice:
        seen: set[str | int] = set()
        for number, rule in enumerate(self.rules, 1):
            asked: set[str | int] = {*rule.tensors, *rule.layers}
            if again := sorted(f"layer {what}" if isinstance(what, int) else what for what in asked & seen):
                raise ValueError(f"rule {number} repeats {again[0]} of an earlier rule, which counts alone")
            if "*" in seen:
                raise ValueError(f"rule {number} is never reached: an earlier rule is about every tensor")
            seen |= asked
        return self

    @model_validator(mode="after")
    def _choices_mean_something(self) -> ProtectionChoice:
        if not self.bits_choices:
            return self
        if len(set(self.bits_choices)) != len(self.bits_choices) or self.bits not in self.bits_choices:
            raise ValueError("bits_choices must name bits, and each number once")
        following = [(self.level, None), *((rule.level, rule.bits) for rule in self.rules)]
        if not any(level in QUANTISED and bits is None for level, bits in following):
            raise ValueError("bits_choices have no meaning where no tensor has the bits of protection: leave them out")
        return self

    @property
    def levels(self) -> tuple[ProtectionLevel, ...]:
        """Every level that the plan names, in the order of :data:`ProtectionLevel`."""
        named = {self.level, *(rule.level for rule in self.rules)}
        return tuple(level for level in get_args(ProtectionLevel) if level in named)

    @property
    def is_hybrid(self) -> bool:
        """Whether tensors may have different levels."""
        return len(self.levels) > 1

    def of_tensor(self, name: str) -> tuple[ProtectionLevel, int]:
        """Return the level and the bits of a tensor: those of the first rule about it, else the default.

        Bits are 0 at the levels that do not quantise.
        """
        level, bits = self._own(name)
        return level, (bits or self.bits) if level in QUANTISED else 0

    def choices_of_tensor(self, name: str) -> tuple[int, ...]:
        """Return the bits among which a round chooses for a tensor; nothing where it has the same in every round."""
        level, bits = self._own(name)
        return self.bits_choices if level in QUANTISED and bits is None else ()

    def _own(self, name: str) -> tuple[ProtectionLevel, int | None]:
        rule = next((rule for rule in self.rules if rule.matches(name)), None)
        return (self.level, None) if rule is None else (rule.level, rule.bits)

    def in_words(self, tensors: Collection[str] = ()) -> str:
        """Return what the plan's protection means, for a person who decides about it.

        Parameters
        ----------
        tensors : Collection[str]
            Names of the adapter's tensors where they are known: then the sentence counts them.
        """
        if not self.rules:
            return f"{self._with_bits(self.level)}: {_SEEN[self.level]}"
        left, parts = sorted(tensors), []
        for rule in self.rules:
            mine = [name for name in left if rule.matches(name)]
            left = [name for name in left if name not in set(mine)]
            number = f"{len(mine)} " if tensors else ""
            about = rule.in_words() if rule.tensors else f"tensors of {rule.in_words()}"
            if len(mine) == 1:
                about = about.replace("tensors", "tensor", 1)
            verb = "is" if len(mine) == 1 else "are"
            which = f"{number}{about}, which {verb} {self._with_bits(rule.level, rule.bits)}"
            parts.append(f"{which}: {_SEEN[rule.level]}")
        rest = f" ({len(left)} tensor{'' if len(left) == 1 else 's'})" if tensors else ""
        first = f"{self._with_bits(self.level)}{rest}: {_SEEN[self.level]}"
        return f"{first}; except {'; and '.join(parts)}"

    def _with_bits(self, level: ProtectionLevel, own: int | None = None) -> str:
        if level not in QUANTISED:
            return level
        if own is None and len(self.bits_choices) > 1:
            least, most = min(self.bits_choices), max(self.bits_choices)
            return f"{level} at {least} to {most} bits, as the researcher chooses for each round"
        return f"{level} at {own or self.bits} bits"


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
    cohort: tuple[MemberChoice, ...] = Field(min_length=2, max_length=MAX_COHORT)
    base_model: BaseModelChoice
    lora: LoraChoice = LoraChoice()
    training: TrainingChoice = TrainingChoice()
    protection: ProtectionChoice = ProtectionChoice()
    aggregation: AggregationChoice = AggregationChoice()
    schedule: ScheduleChoice = ScheduleChoice()
    privacy: PrivacyChoice | None = Field(default=None, description="differential privacy; none without this section")
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
        if missing := REQUIRED_METRICS - set(self.metrics):
            raise ValueError(f"metrics must list {', '.join(sorted(missing))}: rounds are weighed and judged by them")
        self._schedule_fits(len(emails))
        if self.privacy is not None and self.privacy.unit == "patient" and self.lora.dropout > 0:
            raise ValueError(
                "lora > dropout must be 0 with privacy: one patient's draw would change another's gradient"
            )
        if self.privacy is not None and self.privacy.unit == "patient":
            if self.averaging != "b_only":
                raise ValueError(
                    f"aggregation > averaging cannot be {self.averaging} with privacy of unit patient, which trains "
                    "lora_B alone: leave it out"
                )
            if self.training.proximal > 0:
                raise ValueError(
                    "training > proximal has no meaning with privacy of unit patient, whose steps are fedpriv's own: "
                    "leave it out"
                )
        return self

    def _schedule_fits(self, domains: int) -> None:
        schedule = self.schedule
        for name, number in (("quorum", schedule.quorum), ("buffer", schedule.buffer)):
            if number is not None and number > domains:
                raise ValueError(f"schedule > {name} is {number}, but the cohort has {domains} domains")
        if self.averaging == "alternate" and schedule.is_buffered:
            raise ValueError(
                "aggregation > averaging cannot be alternate in a buffered schedule, whose updates enter later rounds"
            )
        if self.privacy is not None and schedule.is_buffered:
            raise ValueError("schedule > mode must be synchronous with privacy, whose noise is counted by rounds")
        if self.privacy is not None and schedule.local_steps == "balanced":
            raise ValueError("schedule > local_steps must be same with privacy, whose noise is counted by steps")

    @property
    def averaging(self) -> Averaging:
        """Which of LoRA's factors a round trains and sends."""
        by_patient = self.privacy is not None and self.privacy.unit == "patient"
        return self.aggregation.averaging or ("b_only" if by_patient else "both")

    @property
    def server_rate(self) -> float:
        """Learning rate of the server optimiser; adam's default is what Adam moves a parameter in a local round."""
        server, training = self.aggregation.server, self.training
        if server.learning_rate is not None:
            return server.learning_rate
        return training.learning_rate * training.steps if server.optimizer == "adam" else 1.0

    @property
    def leaving_metrics(self) -> tuple[MetricName, ...]:
        """The listed metrics that leave a domain: with a privacy section, none that tells of training patients."""
        return tuple(name for name in self.metrics if self.privacy is None or name not in UNNOISED_METRICS)

    @property
    def emails(self) -> tuple[str, ...]:
        """The cohort's addresses, sorted: the order every party uses."""
        return tuple(sorted(member.email for member in self.cohort))

    @property
    def key_maker(self) -> str:
        """The domain that makes the homomorphic key: the first of the cohort in sorted order."""
        return self.emails[0]

    @property
    def first_clip(self) -> float:
        """Largest magnitude of one parameter's update in round 1.

        Unless the plan gives one, ``learning_rate * steps``: Adam moves a parameter by about the learning rate a step.
        With a privacy section, what its noise comes to.
        """
        training = self.training
        if self.protection.clip is None and self.privacy is not None:
            return self.privacy.spread(training.learning_rate, training.steps, training.rounds)
        return self.protection.clip or training.learning_rate * training.steps

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


@functools.lru_cache(maxsize=16)
def parse_plan(text: str, *, source: str = "plan.yaml") -> Plan:
    """Read a plan from YAML text; a text that was read lately is not read again, since a plan never changes.

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
