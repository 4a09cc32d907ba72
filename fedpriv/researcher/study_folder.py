"""A study's folder at the researcher: the request, and all that a restart needs to go on without asking again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedpriv.aggregation import Link
from fedpriv.errors import ConfigError, ExistsError, FedprivError
from fedpriv.files import canonical_json, private_folder, read_json, write_atomic, write_json
from fedpriv.researcher.records import AskedMembers, Exclusion, KeyState, RoundMembers, Standing, SumMembers
from fedpriv.study import (
    AggregateManifest,
    BlobRef,
    CodeRequest,
    Identity,
    RequestDecision,
    Result,
    Signed,
    Ticket,
    load_plan,
)
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.study.shard import ShardStatement

BEFORE_FILE = "plan.before.yaml"
"""The plan before a program changed it."""


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
                f"There is a study {root.name} already", kept="It was left as it is", todo="choose another name"
            )
        folder = cls(root)
        folder.write(request)
        return folder

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
            there = sorted(path.parent.name for path in self.root.parent.glob(f"*/{PLAN_FILE}"))
            todo = f"choose one of {', '.join(there)}" if there else "make one with `fedpriv study new NAME`"
            raise ConfigError(f"There is no study {self.root.name}", todo=todo)
        plan = load_plan(self.root / PLAN_FILE)
        code = (path.name for path in self.root.glob("*.py") if path.name != RECIPE_FILE)
        names = [PLAN_FILE, RECIPE_FILE, *code, *filter(None, [plan.task.template])]
        files = {name: (self.root / name).read_text(encoding="utf-8") for name in names if (self.root / name).exists()}
        return CodeRequest.from_files(files)

    def write(self, request: CodeRequest) -> None:
        """Write a request's files in place of those of the same names, as a person wrote them."""
        for name, text in request.files.items():
            write_atomic(self.root / name, text.encode(), mode=0o644)

    def rewrite(self, text: str) -> Path:
        """Write another ``plan.yaml`` and return where the old one is."""
        path, before = self.root / PLAN_FILE, self.root / BEFORE_FILE
        write_atomic(before, path.read_bytes(), mode=0o644)
        write_atomic(path, text.encode(), mode=0o644)
        return before

    def freeze(self, request: CodeRequest) -> None:
        """Keep the request as it is submitted."""
        for name, text in request.files.items():
            write_atomic(self.bundle / name, text.encode())
        write_json(self.state / "submitted.json", {"study": request.study})

    def submitted_id(self) -> str:
        """Return the id of the request that was submitted."""
        return str(read_json(self.state / "submitted.json")["study"])

    def submitted(self) -> CodeRequest:
        """Return the request as it was submitted.

        Raises
        ------
        ConfigError
            If it was not submitted, or the folder was edited since.
        """
        request = self.submitted_copy()
        if self.draft().study != request.study:
            raise ConfigError(
                "plan.yaml or a code file was changed after the request was submitted",
                kept="The domains keep what they approved; nothing was run",
                todo="undo the change, or make a new study with `fedpriv study new`",
            )
        return request

    def submitted_copy(self) -> CodeRequest:
        """Return the request as it was submitted, whatever was edited beside it since.

        Raises
        ------
        ConfigError
            If it was not submitted, or the copy itself was edited.
        """
        if not self.is_submitted:
            raise ConfigError(f"The study {self.root.name} was not submitted yet", todo="run `fedpriv study submit`")
        request = CodeRequest.from_folder(self.bundle)
        if request.study != self.submitted_id():
            raise ConfigError("The submitted copy of the request was changed", todo="restore it or make a new study")
        return request

    def is_edited(self) -> bool:
        """Say whether plan.yaml or a code file is not any more what was submitted; False before it is."""
        if not self.is_submitted:
            return False
        try:
            return self.draft().study != self.submitted_id()
        except FedprivError:  # it was edited into what is no plan, or removed
            return True

    # -- what a restart needs ------------------------------------------------------------------------------------------

    def keep_cohort(self, identities: dict[str, Identity]) -> None:
        write_json(self.state / "cohort.json", {email: i.model_dump(mode="json") for email, i in identities.items()})

    def cohort(self) -> dict[str, Identity]:
        path = self.state / "cohort.json"
        values = read_json(path) if path.exists() else {}
        return {email: Identity.model_validate(value) for email, value in values.items()}

    def keep_decision(self, decision: RequestDecision) -> None:
        write_json(self.state / "decisions" / f"{decision.member}.json", decision.model_dump(mode="json"))

    def keep_shard(self, statement: Signed, email: str) -> None:
        """Keep what a domain said, signed, of its shard; anybody can check it again (``state/shards``)."""
        write_json(private_folder(self.state / "shards") / f"{email}.json", statement.model_dump(mode="json"))

    def shards(self) -> dict[str, ShardStatement]:
        """Return what the domains that are prepared said of their shards; the signatures were checked before."""
        return {
            path.stem: ShardStatement.model_validate_json(canonical_json(read_json(path)["payload"]))
            for path in sorted((self.state / "shards").glob("*.json"))
        }

    def decision(self, email: str) -> RequestDecision | None:
        """Return what a domain decided on the request, or None if it has not said anything yet."""
        path = self.state / "decisions" / f"{email}.json"
        return RequestDecision.model_validate_json(path.read_bytes()) if path.exists() else None

    def decisions(self) -> dict[str, RequestDecision]:
        folder = self.state / "decisions"
        values = [RequestDecision.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("[!.]*.json"))]
        return {decision.member: decision for decision in values}

    def keep_result(self, ticket: Ticket, result: Result) -> None:
        write_json(self._result_path(ticket), result.model_dump(mode="json"))

    def result(self, ticket: Ticket) -> Result | None:
        path = self._result_path(ticket)
        return Result.model_validate_json(path.read_bytes()) if path.exists() else None

    def next_ping(self) -> int:
        """Return a retry number that no ping of this study has had."""
        used = [
            int(path.stem.split("-ping-1-")[1].split("-")[0]) for path in (self.state / "results").glob("*-ping-1-*")
        ]
        return max(used, default=-1) + 1

    def _result_path(self, ticket: Ticket) -> Path:
        return self.state / "results" / f"{ticket.name}-{ticket.member}.json"

    def round(self, number: int) -> Path:
        return private_folder(self._round(number))

    def _round(self, number: int) -> Path:
        return self.state / "rounds" / f"{number:04d}"

    def aggregate_path(self, manifest: AggregateManifest) -> Path:
        return self.new_aggregate_path(manifest.round, manifest.attempt)

    def new_aggregate_path(self, number: int, attempt: int) -> Path:
        return self._round(number) / f"aggregate-{attempt}.safetensors"

    def keep_manifest(self, manifest: AggregateManifest) -> None:
        write_json(self._round(manifest.round) / f"manifest-{manifest.attempt}.json", manifest.model_dump(mode="json"))

    def manifest(self, number: int) -> AggregateManifest | None:
        """Return what went into the sum of a round that counts, or None: one for a retired key does not."""
        keys = self.keys()
        attempts = _attempts(self._round(number), "manifest")
        if keys is not None and number >= keys.from_round:
            attempts = [attempt for attempt in attempts if attempt == keys.generation]
        if not attempts or (keys is not None and keys.redo_round and number >= keys.redo_round):
            return None
        return _manifest((self._round(number) / f"manifest-{attempts[-1]}.json").read_bytes())

    def keep_summary(self, number: int, attempt: int, summary: dict[str, Any]) -> None:
        """Keep what people are shown about a round; with it the round is finished."""
        write_json(self._round(number) / f"summary-{attempt}.json", summary)

    def keep_skipped(self, number: int) -> None:
        """Keep that a round is left without a sum: from here on there never is one."""
        write_json(self._round(number) / "skipped.json", {"time_s": round(time.time(), 3)})

    def is_skipped(self, number: int) -> bool:
        """Say whether a round is left without a sum."""
        return (self._round(number) / "skipped.json").exists()

    def is_finished(self, number: int) -> bool:
        """Say whether a round is skipped, or summed and nobody refused its sum."""
        manifest = self.manifest(number)
        return self.is_skipped(number) or (
            manifest is not None and (self._round(number) / f"summary-{manifest.attempt}.json").exists()
        )

    # -- who takes part ------------------------------------------------------------------------------------------------

    def exclude(self, exclusion: Exclusion) -> None:
        """Note, also from another process while the study runs, that a domain is not waited for any more."""
        write_json(self.state / "excluded" / f"{exclusion.email}.json", exclusion.model_dump(mode="json"))

    def readmit(self, email: str) -> None:
        """Note that a domain is waited for again, from the next round on."""
        (self.state / "excluded" / f"{email}.json").unlink(missing_ok=True)

    def excluded(self, email: str) -> Exclusion | None:
        """Return that a domain is excluded, with the reason, or None."""
        path = self.state / "excluded" / f"{email}.json"
        return Exclusion.model_validate_json(path.read_bytes()) if path.exists() else None

    def active(self, emails: tuple[str, ...]) -> tuple[str, ...]:
        """Return the domains that are not excluded."""
        return tuple(email for email in emails if self.excluded(email) is None)

    def keep_keys(self, keys: KeyState) -> None:
        write_json(self.state / "study-key.json", keys.model_dump(mode="json"))

    def keys(self) -> KeyState | None:
        """Return where the study key stands, or None before it is made."""
        path = self.state / "study-key.json"
        return KeyState.model_validate_json(path.read_bytes()) if path.exists() else None

    def blob_path(self, blob: BlobRef) -> Path:
        """Where a blob of the key maker lies."""
        return self.state / "blobs" / blob.name

    def keep_standing(self, email: str, standing: Standing) -> None:
        write_json(self.state / "standing" / f"{email}.json", standing.model_dump(mode="json"))

    def standing(self, email: str) -> Standing:
        """Return how far a domain is; a domain that has not answered yet is at the very beginning."""
        path = self.state / "standing" / f"{email}.json"
        return Standing.model_validate_json(path.read_bytes()) if path.exists() else Standing()

    def keep_link(self, email: str, link: Link) -> None:
        write_json(self.state / "links" / f"{email}.json", link.model_dump(mode="json"), durable=False)  # an estimate

    def link(self, email: str) -> Link:
        """Return what is known of a domain's link to the store."""
        path = self.state / "links" / f"{email}.json"
        return Link.model_validate_json(path.read_bytes()) if path.exists() else Link()

    def keep_ticket(self, ticket: Ticket, signed: Signed) -> bytes:
        """Write a ticket as it is sent and return it: without spaces, because it names every update of a round."""
        data = canonical_json(signed.model_dump(mode="json"))
        write_atomic(self._ticket_path(ticket), data)
        return data

    def sent_ticket(self, ticket: Ticket) -> Ticket | None:
        """Return the ticket of this name as it was sent before, or None."""
        path = self._ticket_path(ticket)
        return Ticket.model_validate_json(canonical_json(read_json(path)["payload"])) if path.exists() else None

    def _ticket_path(self, ticket: Ticket) -> Path:
        return self.state / "tickets" / f"{ticket.name}-{ticket.member}.json"

    def last_begun(self) -> int:
        """Return the last round that was begun, or 0."""
        begun = (path.parent.name for path in (self.state / "rounds").glob("*/asked-*.json"))
        return max(map(int, begun), default=0)

    def keep_asked(self, number: int, asked: AskedMembers) -> None:
        write_json(self._round(number) / f"asked-{asked.attempt}.json", asked.model_dump(mode="json"))

    def asked(self, number: int, attempt: int) -> AskedMembers | None:
        """Return who is asked to train in an attempt of a round, or None while that is not decided."""
        path = self._round(number) / f"asked-{attempt}.json"
        return AskedMembers.model_validate_json(path.read_bytes()) if path.exists() else None

    def keep_round_members(self, number: int, members: RoundMembers) -> None:
        write_json(self._round(number) / f"members-{members.attempt}.json", members.model_dump(mode="json"))

    def forget_round_members(self, number: int, attempt: int) -> None:
        """Take back who seals in an attempt of a round: all who were asked to refused, so that nobody did."""
        (self._round(number) / f"members-{attempt}.json").unlink(missing_ok=True)

    def round_members(self, number: int) -> list[RoundMembers]:
        """Return who seals in each attempt of a round so far."""
        paths = [self._round(number) / f"members-{a}.json" for a in _attempts(self._round(number), "members")]
        return [RoundMembers.model_validate_json(path.read_bytes()) for path in paths]

    def keep_sum_members(self, number: int, members: SumMembers) -> None:
        write_json(self._round(number) / f"sum-{members.attempt}.json", members.model_dump(mode="json"))

    def sum_members(self, number: int) -> list[SumMembers]:
        """Return whose updates are added in each attempt of a round so far; all have the same members."""
        paths = [self._round(number) / f"sum-{a}.json" for a in _attempts(self._round(number), "sum")]
        return [SumMembers.model_validate_json(path.read_bytes()) for path in paths]

    def keep_record(self, name: str, record: dict[str, Any]) -> None:
        write_json(self.state / f"{name}.json", record)

    def remove_record(self, name: str) -> None:
        (self.state / f"{name}.json").unlink(missing_ok=True)

    def record(self, name: str) -> dict[str, Any] | None:
        path = self.state / f"{name}.json"
        return read_json(path) if path.exists() else None


@lru_cache(maxsize=4)
def _manifest(data: bytes) -> AggregateManifest:
    """Parse a manifest: every domain of a cohort is sent the same one, which names them all."""
    return AggregateManifest.model_validate_json(data)


def _attempts(folder: Path, name: str) -> list[int]:
    """Return the attempts for which there is a record ``name-ATTEMPT.json``, in order."""
    return sorted(int(path.stem.removeprefix(f"{name}-")) for path in folder.glob(f"{name}-*.json"))
