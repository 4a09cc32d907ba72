"""A study's folder at the researcher: the request, and all that a restart needs to go on without asking again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import ConfigError, ExistsError
from fedpriv.files import private_folder, read_json, write_atomic, write_json
from fedpriv.study import AggregateManifest, CodeRequest, Identity, RequestDecision, Result, Ticket
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE


@dataclass(frozen=True)
class StudyFolder:
    """Paths and small records of one study.

    Attributes
    ----------
    root : Path
        ``studies/<name>``; ``plan.yaml`` and ``train.py`` lie in it for people to edit until they submit.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, request: CodeRequest) -> StudyFolder:
        """Write a new study.

        Raises
        ------
        ExistsError
            If there is one of that name; it is left as it is.
        """
        if (root / PLAN_FILE).exists():
            raise ExistsError(
                f"There is a study {root.name} already", kept="It was left as it is", todo="choose a name"
            )
        for name, text in request.files.items():
            write_atomic(root / name, text.encode(), mode=0o644)
        return cls(root)

    @property
    def state(self) -> Path:
        return private_folder(self.root / "state")

    @property
    def bundle(self) -> Path:
        """The request as it was submitted; rounds use this, whatever is edited beside it later."""
        return self.state / "bundle"

    @property
    def history_path(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def lock_path(self) -> Path:
        return self.root / "run.lock"

    @property
    def is_submitted(self) -> bool:
        return (self.state / "submitted.json").exists()

    def draft(self) -> CodeRequest:
        """Return the request as it stands in the folder.

        Raises
        ------
        ConfigError
            If there is no study.
        PlanError, UntrustedError
            If the plan or a file is not valid.
        """
        if not (self.root / PLAN_FILE).exists():
            raise ConfigError(f"There is no study {self.root.name}", todo="see `fedpriv study new --help`")
        names = [PLAN_FILE, RECIPE_FILE, *(p.name for p in self.root.glob("*.py") if p.name != RECIPE_FILE)]
        files = {name: (self.root / name).read_text(encoding="utf-8") for name in names if (self.root / name).exists()}
        return CodeRequest.from_files(files)

    def freeze(self, request: CodeRequest) -> None:
        """Keep the request as it is submitted."""
        for name, text in request.files.items():
            write_atomic(self.bundle / name, text.encode())
        write_json(self.state / "submitted.json", {"study": request.study})

    def submitted(self) -> CodeRequest:
        """Return the request as it was submitted.

        Raises
        ------
        ConfigError
            If it was not submitted, or the folder was edited since.
        """
        if not self.is_submitted:
            raise ConfigError(f"The study {self.root.name} was not submitted yet", todo="run `fedpriv study submit`")
        request = CodeRequest.from_folder(self.bundle)
        if request.study != read_json(self.state / "submitted.json")["study"]:
            raise ConfigError("The submitted copy of the request was changed", todo="restore it or make a new study")
        if self.draft().study != request.study:
            raise ConfigError(
                "plan.yaml or a code file was changed after the request was submitted",
                kept="The domains keep what they approved; nothing was run",
                todo="undo the change, or make a new study with `fedpriv study new`",
            )
        return request

    # -- what a restart needs ------------------------------------------------------------------------------------------

    def keep_cohort(self, identities: dict[str, Identity]) -> None:
        write_json(self.state / "cohort.json", {email: i.model_dump(mode="json") for email, i in identities.items()})

    def cohort(self) -> dict[str, Identity]:
        path = self.state / "cohort.json"
        values = read_json(path) if path.exists() else {}
        return {email: Identity.model_validate(value) for email, value in values.items()}

    def keep_decision(self, decision: RequestDecision) -> None:
        write_json(self.state / "decisions" / f"{decision.member}.json", decision.model_dump(mode="json"))

    def decisions(self) -> dict[str, RequestDecision]:
        folder = self.state / "decisions"
        values = [RequestDecision.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("[!.]*.json"))]
        return {decision.member: decision for decision in values}

    def keep_result(self, ticket: Ticket, result: Result) -> None:
        write_json(self._result_path(ticket), result.model_dump(mode="json"))

    def result(self, ticket: Ticket) -> Result | None:
        path = self._result_path(ticket)
        return Result.model_validate_json(path.read_bytes()) if path.exists() else None

    def _result_path(self, ticket: Ticket) -> Path:
        return self.state / "results" / f"{ticket.name}-{ticket.member}.json"

    def round(self, number: int) -> Path:
        return private_folder(self.state / "rounds" / f"{number:04d}")

    def aggregate_path(self, number: int) -> Path:
        return self.round(number) / "aggregate.safetensors"

    def keep_manifest(self, manifest: AggregateManifest) -> None:
        write_json(self.round(manifest.round) / "manifest.json", manifest.model_dump(mode="json"))

    def manifest(self, number: int) -> AggregateManifest | None:
        path = self.round(number) / "manifest.json"
        return AggregateManifest.model_validate_json(path.read_bytes()) if path.exists() else None

    def keep_record(self, name: str, record: dict[str, Any]) -> None:
        write_json(self.state / f"{name}.json", record)

    def record(self, name: str) -> dict[str, Any] | None:
        path = self.state / f"{name}.json"
        return read_json(path) if path.exists() else None
