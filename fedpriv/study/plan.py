"""The plan: the declarative half of a study, validated, frozen, and readable by a data owner."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from fedpriv.errors import PlanError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.averaging import Averaging
from fedpriv.study.names import Email, Fingerprint, Sha256, Slug, Title
from fedpriv.study.privacy import UNNOISED_METRICS, PrivacyChoice
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.study.schedule import ScheduleChoice
from fedpriv.study.section import Section
from fedpriv.study.task import TaskChoice
from fedpriv.study.validation import validate_section
from fedpriv.study.yaml_text import dump_yaml, load_yaml

MAX_COHORT = 256
"""Most domains of a study: what packing, energies of sums and the sizes of messages are laid out for."""

MetricName = Literal[
    "train_loss",
    "heldout_loss",
    "heldout_tokens",
    "train_tokens",
    "examples",
    "heldout_examples",
    "heldout_auroc",
    "heldout_auroc_se",
    "heldout_micro_f1",
    "heldout_macro_f1",
]
Precision = Literal["auto", "float32", "bfloat16", "nf4"]

REQUIRED_METRICS: frozenset[MetricName] = frozenset({"examples", "heldout_loss", "heldout_tokens"})
"""Without these no round can be weighed and judged."""

ANSWER_METRICS: tuple[MetricName, ...] = ("heldout_auroc", "heldout_auroc_se", "heldout_micro_f1", "heldout_macro_f1")
"""What a task with questions can report, too."""


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
    targets: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")], ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, max_length=16
    )
    use_dora: bool = Field(
        default=False, description="train the length of each output's weights, too (DoRA, Liu et al. 2024)"
    )
    rslora: bool = Field(
        default=False, description="scale by alpha / sqrt(rank), not alpha / rank (rsLoRA, Kalajdzievski 2023)"
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
    accumulation: int = Field(
        default=1, ge=1, le=1024, description="parts in which a step's examples are worked through, to need less memory"
    )
    checkpointing: bool = Field(
        default=False, description="compute activations once more instead of keeping them: less memory, a third slower"
    )
    precision: Precision = Field(
        default="auto",
        description="of the base model: bfloat16, float32, or whichever is faster at the domain; or nf4, weights of 4 "
        "bits (QLoRA) for models that are too large else",
    )
    max_seconds: int = Field(default=900, ge=5, le=86_400, description="wall clock of one local round, in seconds")
    seed: int = Field(default=0, ge=0, lt=2**31)
    proximal: float = Field(
        default=0.0, ge=0, le=1000, description="mu: how strongly a local round is held near where it began (FedProx)"
    )

    @property
    def four_bits(self) -> bool:
        """Whether the base model's weights are of 4 bits, for which a training process imports more."""
        return self.precision == "nf4"


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
    task: TaskChoice = TaskChoice()
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
        if not self.task.is_predictive and (odd := sorted(set(self.metrics) & set(ANSWER_METRICS))):
            raise ValueError(f"metrics lists {', '.join(odd)}, but the task {self.task.kind} asks no questions")
        self._schedule_fits(len(emails))
        if self.privacy is not None and self.privacy.unit == "patient" and self.lora.dropout > 0:
            raise ValueError(
                "lora > dropout must be 0 with privacy: one patient's draw would change another's gradient"
            )
        if self.privacy is not None and self.privacy.unit == "patient":
            if self.lora.use_dora:
                raise ValueError(
                    "lora > use_dora cannot be with privacy of unit patient, which trains lora_B alone: leave it out"
                )
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
    def smallest_sum(self) -> int:
        """Fewest updates that a sum may hold as the schedule provides for it, with nobody excluded."""
        return self.schedule.buffer or self.schedule.quorum or len(self.cohort)

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
        return dump_yaml(self.model_dump(mode="json"))


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
