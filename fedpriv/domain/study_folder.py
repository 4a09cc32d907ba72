"""One study's folder at a domain: everything a restart needs to go on where a kill interrupted it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedpriv.errors import ConfigError
from fedpriv.files import private_folder, read_json, write_json
from fedpriv.study import Identity, Signed, SignedUpdate
from fedpriv.study.names import Email, Sha256
from fedpriv.study.section import Section

RecordT = TypeVar("RecordT", bound=Section)


class SealedRound(Section):
    """What this domain sealed in one attempt of a round, with whom, and which share of it was beyond the clip.

    ``carried`` are earlier rounds whose updates came too late for their sums and are in this one.
    """

    update: SignedUpdate
    members: tuple[Email, ...]
    clipped: float
    carried: tuple[int, ...] = ()


class UsedUpdate(Section):
    """The rounds that a trained update was sealed for, in this order; only the last one may be confirmed."""

    rounds: tuple[int, ...]


class SealedParts(Section):
    """Which trained updates a round's sealed update is made of: the round's own, and late ones that it carries on.

    ``parts`` are pairs of the round that an update was trained for and the digits of the adapter it started from.
    """

    parts: tuple[tuple[int, str], ...]


class ConfirmedRound(Section):
    """Which updates this domain agreed to have added in one attempt of a round."""

    members: tuple[Email, ...]
    updates_sha256: Sha256


class OpenedRound(Section):
    """The sum of a round that this domain opened, and what the next round is sealed with.

    ``members``  whose updates were in it; nobody's if the round was skipped
    ``scales``   one for each tensor that the study ever sends, in the order of their names
    """

    attempt: int
    members: tuple[Email, ...]
    updates_sha256: Sha256
    adapter_sha256: Sha256
    scales: tuple[float, ...]

    @property
    def is_skipped(self) -> bool:
        """Whether the round was left without a sum."""
        return not self.members


@dataclass(frozen=True)
class StudyFolder:
    """Paths and small records of one study.

    Attributes
    ----------
    root : Path
        ``state/studies/<study id>``.
    """

    root: Path

    @property
    def key_path(self) -> Path:
        """The study key in use (secret, 0600)."""
        return self.root / "keys" / "study.key"

    def retired_key_path(self, generation: int) -> Path:
        """Where a study key goes that is never used again: kept as evidence (secret, 0600)."""
        return self.root / "keys" / f"retired-{generation:04d}.key"

    def retired_generations(self) -> list[int]:
        """Return the generations of the keys that were retired, oldest first."""
        paths = (self.root / "keys").glob("retired-*.key")
        return sorted(int(path.stem.removeprefix("retired-")) for path in paths)

    @property
    def workspace(self) -> Path:
        """The only folder that the training worker may write."""
        return self.root / "workspace"

    @property
    def tokens(self) -> Path:
        """The shard's tokens, encoded once; the training worker may read them, and no job may write them."""
        return private_folder(self.root / "tokens")

    @property
    def adapters(self) -> Path:
        """Adapters after each round; the training worker may read them."""
        return self.root / "adapters"

    def adapter(self, round_number: int) -> Path:
        return self.adapters / f"{round_number:04d}.safetensors"

    def server_state(self, round_number: int) -> Path:
        """What the server optimiser keeps after a round, beside the adapter that it moved."""
        return self.adapters / f"{round_number:04d}.server.safetensors"

    def round(self, round_number: int, attempt: int) -> Path:
        return private_folder(self.root / "rounds" / f"{round_number:04d}-{attempt}")

    def sealed_path(self, round_number: int, attempt: int) -> Path:
        return self.round(round_number, attempt) / "sealed.safetensors"

    def residual_path(self, round_number: int, attempt: int) -> Path:
        """What sealing left out in that round: the domain's own, never sent."""
        return self.round(round_number, attempt) / "residual.f32"

    @property
    def updates(self) -> Path:
        """Trained updates as they passed the gatekeeper, with their noise on: every attempt seals these."""
        return private_folder(self.root / "updates")

    def update_path(self, round_number: int, start: str) -> Path:
        """The update of a round from the adapter whose digest begins with ``start``."""
        return self.updates / f"{round_number:04d}-{start}.safetensors"

    def attempts(self, round_number: int) -> list[int]:
        """Return the attempts of a round that have a folder here."""
        paths = (self.root / "rounds").glob(f"{round_number:04d}-*")
        return sorted(int(path.name.partition("-")[2]) for path in paths)

    def output(self, name: str) -> Path:
        """Return a folder in the workspace for one job's output."""
        return private_folder(self.workspace / name)

    def last_log(self) -> Path | None:
        """Return the log of the job that ran last, or None; untrusted code wrote it."""
        logs = sorted(self.workspace.glob("*/worker.log"), key=lambda path: path.lstat().st_mtime)
        return logs[-1] if logs else None

    def worker_log(self) -> Path | None:
        """Return what the worker itself said, between and around its jobs, or None if that is nothing.

        A worker that ended by itself says why here. Untrusted code runs in it, and may have written it.
        """
        path = self.workspace / "worker.log"
        with contextlib.suppress(OSError):
            return path if path.lstat().st_size else None
        return None

    def identities(self) -> dict[str, Identity]:
        """Return the cohort's verified public keys by address.

        Raises
        ------
        ConfigError
            If the study was not prepared yet.
        """
        path = self.root / "identities.json"
        if not path.exists():
            raise ConfigError("The study was not prepared at this domain yet", todo="send the prepare ticket first")
        return {value["email"]: Identity.model_validate(value) for value in read_json(path)}

    def keep_identities(self, identities: dict[str, Identity]) -> None:
        write_json(self.root / "identities.json", [i.model_dump(mode="json") for i in identities.values()])

    def result(self, ticket_digest: str) -> Signed | None:
        """Return the signed answer to a ticket that was carried out already."""
        path = self.root / "results" / f"{ticket_digest}.json"
        return Signed.model_validate_json(path.read_bytes()) if path.exists() else None

    def keep_result(self, ticket_digest: str, result: Signed) -> None:
        write_json(self.root / "results" / f"{ticket_digest}.json", result.model_dump(mode="json"))

    def last_result(self) -> tuple[Signed, float] | None:
        """Return the newest signed answer and when it was given (seconds since the epoch), or None."""
        paths = sorted((self.root / "results").glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not paths:
            return None
        return Signed.model_validate_json(paths[-1].read_bytes()), paths[-1].stat().st_mtime

    def keep_hours(self, hours: str, kind: str, round_number: int) -> None:
        """Note that a ticket waits for the approved hours; since when is told by the file."""
        noted = {"hours": hours, "kind": kind, "round": round_number}
        path = self.root / "hours.json"
        if not path.exists() or read_json(path) != noted:
            write_json(path, noted)

    def hours_waited_for(self) -> tuple[dict[str, Any], float] | None:
        """Return the ``hours``, ``kind`` and ``round`` of a ticket that waits for them and since when, or None."""
        path = self.root / "hours.json"
        return (read_json(path), path.stat().st_mtime) if path.exists() else None

    def forget_hours(self) -> None:
        (self.root / "hours.json").unlink(missing_ok=True)

    def claim(self, slot: str, work_digest: str) -> bool:
        """Give ``slot`` (such as a kind, round and attempt) to one piece of work; return False if another has it."""
        path = self.root / "slots" / f"{slot}.json"
        if path.exists():
            return read_json(path)["work"] == work_digest
        write_json(path, {"work": work_digest})
        return True

    def unclaim(self, slot: str) -> None:
        """Give a slot back, whose work had no effect."""
        (self.root / "slots" / f"{slot}.json").unlink(missing_ok=True)

    # -- records of rounds ---------------------------------------------------------------------------------------

    def sealed(self, round_number: int, attempt: int) -> SealedRound | None:
        """Return what was sealed in an attempt of a round, or None."""
        return _read(self.round(round_number, attempt) / "update.json", SealedRound)

    def keep_sealed(self, sealed: SealedRound) -> None:
        header = sealed.update.header
        _write(self.round(header.round, header.attempt) / "update.json", sealed)

    def used(self, round_number: int, start: str) -> tuple[int, ...]:
        """Return the rounds that a trained update was sealed for, in order."""
        found = _read(self.updates / f"{round_number:04d}-{start}.used.json", UsedUpdate)
        return () if found is None else found.rounds

    def keep_used(self, round_number: int, start: str, rounds: tuple[int, ...]) -> None:
        _write(self.updates / f"{round_number:04d}-{start}.used.json", UsedUpdate(rounds=rounds))

    def parts(self, round_number: int, start: str) -> SealedParts | None:
        """Return what a round's sealed update is made of, decided when it was sealed first, or None."""
        return _read(self.updates / f"{round_number:04d}-{start}.parts.json", SealedParts)

    def keep_parts(self, round_number: int, start: str, parts: SealedParts) -> None:
        _write(self.updates / f"{round_number:04d}-{start}.parts.json", parts)

    def confirmed(self, round_number: int, attempt: int) -> ConfirmedRound | None:
        """Return which updates were agreed on in an attempt of a round, or None."""
        return _read(self.round(round_number, attempt) / "confirmed.json", ConfirmedRound)

    def keep_confirmed(self, round_number: int, attempt: int, confirmed: ConfirmedRound) -> None:
        _write(self.round(round_number, attempt) / "confirmed.json", confirmed)

    def opened(self, round_number: int) -> OpenedRound | None:
        """Return the last sum of a round that was opened, or None; its adapter is :meth:`adapter`."""
        return _read(self.adapters / f"{round_number:04d}.json", OpenedRound)

    def keep_opened(self, round_number: int, opened: OpenedRound) -> None:
        _write(self.adapters / f"{round_number:04d}.json", opened)


def _read(path: Path, record: type[RecordT]) -> RecordT | None:
    return record.model_validate_json(path.read_bytes()) if path.exists() else None


def _write(path: Path, record: Section) -> None:
    write_json(path, record.model_dump(mode="json"))
