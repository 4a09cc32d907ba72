"""One study's folder at a domain: everything a restart needs to go on where a kill interrupted it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpriv.errors import ConfigError
from fedpriv.files import private_folder, read_json, write_json
from fedpriv.study import Identity, Signed, SignedUpdate


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
        """The homomorphic key (secret, 0600)."""
        return self.root / "keys" / "study.key"

    @property
    def workspace(self) -> Path:
        """The only folder that the training worker may write."""
        return self.root / "workspace"

    @property
    def adapters(self) -> Path:
        """Adapters after each round; the training worker may read them."""
        return self.root / "adapters"

    def adapter(self, round_number: int) -> Path:
        return self.adapters / f"{round_number:04d}.safetensors"

    def round(self, round_number: int, attempt: int) -> Path:
        return private_folder(self.root / "rounds" / f"{round_number:04d}-{attempt}")

    def output(self, name: str) -> Path:
        """Return a folder in the workspace for one job's output."""
        return private_folder(self.workspace / name)

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

    def claim(self, slot: str, work_digest: str) -> bool:
        """Give ``slot`` (a kind, round and attempt) to one piece of work; return False if another has it."""
        path = self.root / "slots" / f"{slot}.json"
        if path.exists():
            return read_json(path)["work"] == work_digest
        write_json(path, {"work": work_digest})
        return True

    def sealed_update(self, round_number: int, attempt: int) -> SignedUpdate | None:
        """Return the update that was sealed in a round, or None."""
        path = self.round(round_number, attempt) / "update.json"
        return SignedUpdate.model_validate_json(path.read_bytes()) if path.exists() else None

    def keep_sealed_update(self, update: SignedUpdate) -> None:
        folder = self.round(update.header.round, update.header.attempt)
        write_json(folder / "update.json", update.model_dump(mode="json"))
