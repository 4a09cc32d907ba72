"""A domain's folder: ``domain.yaml``, which people edit, and ``state/``, which only fedpriv writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from fedpriv.clinical.harmonize import REFUSED_SHARE
from fedpriv.clinical.sources.postgres import is_postgres
from fedpriv.clinical.split import SplitKind
from fedpriv.domain.pinning import unchanged, with_researcher
from fedpriv.errors import ConfigError, ExistsError, PlanError
from fedpriv.files import private_folder, write_atomic
from fedpriv.study import load_yaml, validate_section
from fedpriv.study.messages import Hours
from fedpriv.study.names import Email, Sha256, Slug
from fedpriv.study.plan import MAX_COHORT, MemberChoice, MetricName
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.study.section import Section
from fedpriv.study.task import TaskKind
from fedpriv.training.device import DeviceChoice
from fedpriv.transport import TransportChoice, require_whole

CONFIG_FILE = "domain.yaml"


class DataChoice(Section):
    """Where the private tables are; they are read there and never copied into syft."""

    source: str = Field(
        min_length=1,
        description="folder with the tables as CSV, csv.gz or Parquet, a DuckDB file, or postgresql://user@host/database",
    )
    mapping: str | None = Field(
        default=None,
        min_length=1,
        description="mapping.yaml that makes MIMIC-III of the tables, beside domain.yaml or absolute; none: they are",
    )
    dataset: Slug = "mimic-iii"
    heldout_fraction: float = Field(default=0.2, gt=0, lt=1, description="share of patients kept for evaluation")
    split: SplitKind = Field(
        default="patient-and-time", description="who is kept: the patients who came last, or patients by a hash"
    )
    refused_rows: float = Field(
        default=REFUSED_SHARE, ge=0, le=1, description="largest share of a table's rows that may be refused"
    )

    @property
    def location(self) -> str:
        """The source, with ``~`` for the home folder written out."""
        return self.source if is_postgres(self.source) else str(Path(self.source).expanduser())


class Terms(Section):
    """How far an approval goes. What is left out is taken from the plan, within the policy."""

    rounds: int | None = Field(default=None, ge=1, le=1000, description="at most so many rounds")
    metrics: tuple[MetricName, ...] | None = Field(default=None, description="the only numbers that may leave")
    minimum_cohort: int | None = Field(
        default=None, ge=2, le=MAX_COHORT, description="fewest domains in a round and a sum"
    )
    epsilon: float | None = Field(default=None, gt=0, le=1000, description="most of the privacy budget it may spend")
    days: int | None = Field(default=None, ge=1, le=3650, description="the approval ends after so many days")
    seconds: int | None = Field(default=None, ge=5, le=86_400, description="a local round stops after so many")
    hours: Hours | None = Field(default=None, description="when the model may be run, local time, as 19:00-07:00")
    release: bool | None = Field(default=None, description="whether the final adapter may be handed over")


STOCK_RECIPE = "stock-recipe"


class StandingApproval(Terms):
    """Requests that are approved when they arrive: with exactly this code, from these researchers, on these terms.

    ``code`` is ``stock-recipe``; or the digest of a request's code, over every file but plan.yaml; or the digest of a
    whole request, which is its id. A file more, a file less or one byte changed is another digest.
    """

    name: Slug
    code: Literal["stock-recipe"] | Sha256
    researchers: tuple[Email, ...] = Field(default=(), max_length=64, description="nobody named: every pinned one")
    tasks: tuple[TaskKind, ...] | None = Field(
        default=None, description="tasks that it is for, with notes of any category; none: the default task alone"
    )


class PolicyChoice(Section):
    """What this data owner agrees to without being asked, and what never."""

    standing: tuple[StandingApproval, ...] = Field(
        default=(), max_length=64, description="what is approved without asking; nothing: a person reads each request"
    )
    release: Literal["ask", "after-study"] = Field(
        default="ask", description="whether the final adapter may be handed over"
    )
    release_quorum: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COHORT,
        description="domains that must consent before this one hands the adapter over; none: all in its last sum",
    )
    max_rounds: int = Field(default=20, ge=1, le=1000)
    max_steps: int = Field(default=1000, ge=1, le=100_000, description="optimiser steps a round")
    max_seconds: int = Field(default=3600, ge=5, le=86_400, description="wall clock of one local round, in seconds")
    minimum_cohort: int = Field(
        default=3,
        ge=2,
        le=MAX_COHORT,
        description="fewest domains in a study, and fewest updates in a sum that this domain lets be opened",
    )
    largest_share: float = Field(
        default=0.8, gt=0, le=1, description="a sum in which one domain's weight is a larger share is not unlocked"
    )
    protection: tuple[ProtectionLevel, ...] = Field(
        default=("sealed", "ckks"),
        min_length=1,
        description="levels that updates may leave at; a hybrid plan needs the level of every one of its rules here",
    )
    epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1e4,
        description="privacy budget: epsilon of these data over all studies together; with it, only studies with a "
        "privacy section are carried out",
    )


SandboxMode = Literal["required", "preferred", "off"]


class LauncherChoice(Section):
    """Several processes that train together, started by ``accelerate launch``; only inside bubblewrap."""

    processes: int | None = Field(default=None, ge=2, le=64, description="how many; on GPUs, one for each")
    config: str | None = Field(
        default=None, pattern=r"^[/~]", description="or a file that `accelerate config` wrote, with its whole path"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> LauncherChoice:
        if (self.processes is None) == (self.config is None):
            raise ValueError("a launcher has either processes or config")
        return self


class ResourcesChoice(Section):
    """What a study may use of this machine."""

    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="for training, over all its processes; and processes that seal and open large adapters",
    )
    device: DeviceChoice = Field(
        default="auto", description="what trains: cuda needs an NVIDIA GPU, auto takes one if there is one"
    )
    launcher: LauncherChoice | None = Field(default=None, description="none: one process trains")
    memory_gb: float = Field(default=8.0, gt=0, le=16_384, description="of a training job, all its processes together")
    disk_gb: float = Field(default=4.0, gt=0, le=16_384, description="what a training job may write")
    processes: int = Field(default=64, ge=8, le=65_536, description="of a training job, threads counted too")
    poll_seconds: float = Field(default=0.2, ge=0.05, le=60)
    sandbox: SandboxMode = Field(
        default="preferred",
        description="walls around training: required refuses to train without bubblewrap; off has none",
    )

    @field_validator("sandbox", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads a bare off as false

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gb * 2**30)

    @property
    def disk_bytes(self) -> int:
        return int(self.disk_gb * 2**30)


class ServiceChoice(Section):
    """How the service itself is watched."""

    metrics_port: int = Field(
        default=0, ge=0, le=65_535, description="of 127.0.0.1, for /healthz and /metrics; 0: neither"
    )


class DomainConfig(Section):
    """``domain.yaml``."""

    fedpriv: Literal[1] = 1
    name: Slug
    email: Email
    store: str = Field(min_length=1, description="folder or URL of the store that all parties reach")
    data: DataChoice
    researchers: tuple[MemberChoice, ...] = Field(
        default=(), max_length=64, description="who may send requests, pinned"
    )
    policy: PolicyChoice = PolicyChoice()
    resources: ResourcesChoice = ResourcesChoice()
    transport: TransportChoice = TransportChoice()
    service: ServiceChoice = ServiceChoice()


_HEADER = """\
# A data owner's domain. Edit this file and start `fedpriv domain serve` again.
# It holds no data and no secret: keys, approvals and the ledger are in state/ beside it.
"""


@dataclass(frozen=True)
class DomainFolder:
    """Paths below a domain's folder.

    Attributes
    ----------
    root : Path
        The folder with ``domain.yaml``.
    """

    root: Path

    @property
    def config_path(self) -> Path:
        return self.root / CONFIG_FILE

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def identity_path(self) -> Path:
        return self.state / "keys" / "identity.json"

    @property
    def transport_keys_path(self) -> Path:
        return self.state / "keys" / "transport.json"

    @property
    def ledger_path(self) -> Path:
        return self.state / "ledger.jsonl"

    @property
    def lock_path(self) -> Path:
        return self.state / "serve.lock"

    @property
    def status_path(self) -> Path:
        return self.state / "status.json"

    @property
    def requests(self) -> Path:
        return self.state / "requests"

    @property
    def data(self) -> Path:
        return self.state / "data"

    def mapping_path(self, choice: DataChoice) -> Path | None:
        """Return the path of the mapping; a relative one counts from this folder. None if the tables need none."""
        return None if choice.mapping is None else self.root / Path(choice.mapping).expanduser()

    def study(self, study: str) -> Path:
        """Return the folder of one study's keys, adapters and rounds."""
        return self.state / "studies" / study

    def create(self, config: DomainConfig) -> None:
        """Write ``domain.yaml`` and the private state folder.

        Raises
        ------
        ExistsError
            If there is a domain already, or what is left of one; it is left as it is.
        """
        if self.config_path.exists():
            raise self.taken()
        if self.state.exists() and not self.is_unfinished():
            raise ExistsError(
                f"{self.state} holds the keys of a domain, whose {CONFIG_FILE} is missing",
                kept="It was left as it is",
                todo=f"restore {self.config_path} from its backup, or choose another folder",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        private_folder(self.state)
        self.write_config(config)

    def is_unfinished(self) -> bool:
        """Say whether the making of a domain was broken off: it has a state, and did nothing and said nothing yet."""
        if not self.state.is_dir():
            return False
        made = {path for path in self.state.rglob("*") if not path.name.startswith(".")}  # a kill leaves those
        keys = {self.identity_path.parent, self.identity_path, self.transport_keys_path}
        if not made <= keys | {self.ledger_path}:
            return False
        return not self.ledger_path.exists() or b"\n" not in self.ledger_path.read_bytes()

    def taken(self) -> ExistsError:
        """Return the error that there is a domain already."""
        return ExistsError(
            f"{self.root} is a domain already", kept="It was left as it is", todo="choose another folder"
        )

    def pin(self, member: MemberChoice) -> None:
        """Pin a researcher in ``domain.yaml``, in the place of another key of the same address; the rest stays as text.

        Raises
        ------
        ConfigError
            If the file is written so that only a person can change it.
        """
        before = self.load_config()
        text = with_researcher(self.config_path.read_text(encoding="utf-8"), member, before.researchers)
        others = {other.email: other for other in before.researchers if other.email != member.email}
        try:
            after = validate_section(DomainConfig, load_yaml(text, source=CONFIG_FILE), source=CONFIG_FILE)
        except PlanError as error:
            raise unchanged(self.config_path, member) from error
        pinned = {other.email: other for other in after.researchers}
        whole = len(pinned) == len(after.researchers) and after == before.model_copy(
            update={"researchers": after.researchers}
        )
        if not whole or pinned != others | {member.email: member}:
            raise unchanged(self.config_path, member)
        write_atomic(self.config_path, text.encode(), mode=0o644)

    def write_config(self, config: DomainConfig) -> None:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomic(self.config_path, (_HEADER + text).encode(), mode=0o644)

    def load_config(self) -> DomainConfig:
        """Read ``domain.yaml``.

        Raises
        ------
        ConfigError
            If there is none, or a setting is wrong (named by its path).
        """
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(
                f"{self.root} is no domain: it has no {CONFIG_FILE}", todo="run `fedpriv domain init` first"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.config_path} cannot be read ({error})",
                kept="It was left as it is",
                todo="let the domain's user read it, as UTF-8 text",
            ) from error
        try:
            value: dict[str, Any] = load_yaml(text, source=CONFIG_FILE)
            config = validate_section(DomainConfig, value, source=CONFIG_FILE)
        except PlanError as error:
            raise ConfigError(error.what, kept=error.kept, todo=f"correct {self.config_path}") from error
        require_whole(config.store)
        return config
