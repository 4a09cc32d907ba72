"""The book of code requests: each frozen and hashed at arrival, outside the syft folder, with its decision."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedpriv.errors import ConfigError, PlanError, UntrustedError
from fedpriv.files import private_folder, read_json, write_atomic, write_json
from fedpriv.study import CodeRequest, RequestDecision
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section

_WHOLE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class StoredRequest:
    """A frozen request.

    Attributes
    ----------
    request : CodeRequest
        Its files and plan, read from the frozen copy.
    researcher : str
        Who sent it: the signer of the syft message, never a name inside it.
    received_s : float
        Seconds since the epoch.
    decision : RequestDecision
        The standing decision; ``pending`` until somebody decides.
    """

    request: CodeRequest
    researcher: str
    received_s: float
    decision: RequestDecision


class ReleaseDecision(Section):
    """What a data owner decided on the release of a study's adapter.

    ``adapter_sha256`` is of the adapter that was asked for; a decision is on this adapter and no other.
    """

    decision: Literal["pending", "approved", "withheld"]
    adapter_sha256: Sha256
    asked_s: float
    reason: str = Field(default="", max_length=2000)


class RequestBook:
    """Requests of one domain on disk: ``<study>/bundle/`` (frozen), ``received.json``, ``decision.json``."""

    def __init__(self, folder: Path, member: str) -> None:
        self._folder = private_folder(folder)
        self._member = member

    def receive(self, request: CodeRequest, researcher: str) -> bool:
        """Freeze a request; the same request again changes nothing.

        Returns
        -------
        bool
            True if it is new.
        """
        folder = self._folder / request.study
        if self.holds(request.study):
            return False
        shutil.rmtree(folder / "bundle", ignore_errors=True)  # what a killed process left half written
        for name, text in request.files.items():
            write_atomic(folder / "bundle" / name, text.encode(), mode=0o400)
        write_json(folder / "received.json", {"researcher": researcher, "received_s": round(time.time(), 3)})
        return True

    def holds(self, study: str) -> bool:
        """Say whether a request was received, by its whole id."""
        return (self._folder / study / "received.json").exists()

    def undecided(self, researcher: str) -> int:
        """Return how many requests of a researcher wait for a decision."""
        waiting = (study for study in self.studies() if self.decision(study).decision == "pending")
        return sum(self.researcher(study) == researcher for study in waiting)

    def find(self, study: str) -> str:
        """Return the whole id of a request by an unambiguous beginning of it, without reading its files.

        Raises
        ------
        ConfigError
            If there is none, or several begin so.
        """
        if _WHOLE.fullmatch(study) and self.holds(study):
            return study  # without a look at all the others
        found = [known for known in self.studies() if known.startswith(study)] if study else []
        if len(found) != 1:
            what = f"{len(found)} requests begin" if found else "No request begins"
            raise ConfigError(f"{what} with {study!r}", todo="see `fedpriv domain requests`")
        return found[0]

    def researcher(self, study: str) -> str:
        """Return who sent a request, without reading its files. Raises as :meth:`find`."""
        return str(read_json(self._folder / self.find(study) / "received.json")["researcher"])

    def get(self, study: str) -> StoredRequest:
        """Return a request by its id or an unambiguous beginning of it.

        Raises
        ------
        ConfigError
            If there is none, or several begin so.
        UntrustedError
            If the frozen copy no longer has the digest it was frozen with: a file was changed, added or removed.
        """
        whole = self.find(study)
        folder = self._folder / whole
        request = CodeRequest.from_folder(folder / "bundle")
        if request.study != whole:
            raise UntrustedError(
                f"The frozen copy of request {whole[:12]} was changed on disk",
                kept="It will not be run",
                todo="reject it and ask the researcher to submit it again",
            )
        received = read_json(folder / "received.json")
        return StoredRequest(
            request=request,
            researcher=received["researcher"],
            received_s=received["received_s"],
            decision=self._decision(folder, whole),
        )

    def studies(self) -> list[str]:
        """Return the ids of all requests, oldest first."""
        folders = [path for path in self._folder.iterdir() if (path / "received.json").exists()]
        return [path.name for path in sorted(folders, key=lambda p: read_json(p / "received.json")["received_s"])]

    def all(self) -> list[StoredRequest]:
        """Return every request whose frozen copy is whole, oldest first; see :meth:`damaged` for the others."""
        return [stored for stored in map(self._whole, self.studies()) if stored is not None]

    def damaged(self) -> list[str]:
        """Return the ids of requests whose frozen copy was changed on disk: they can only be rejected."""
        return [study for study in self.studies() if self._whole(study) is None]

    def decide(self, decision: RequestDecision) -> None:
        """Store a decision in place of the one before."""
        write_json(self._folder / decision.study / "decision.json", decision.model_dump(mode="json"))

    def decision(self, study: str) -> RequestDecision:
        """Return the standing decision on a request, by its whole id, without reading the request itself."""
        return self._decision(self._folder / study, study)

    def release(self, study: str) -> ReleaseDecision | None:
        """Return what was decided on the release of a study's adapter; None if it was not asked for yet."""
        path = self._folder / study / "release.json"
        return ReleaseDecision.model_validate_json(path.read_bytes()) if path.exists() else None

    def decide_release(self, study: str, decision: ReleaseDecision) -> None:
        """Store the decision on a release in place of the one before."""
        write_json(self._folder / study / "release.json", decision.model_dump(mode="json"))

    def recipe_path(self, study: str) -> Path:
        """Return the frozen ``train.py`` of a request."""
        return self._folder / study / "bundle" / "train.py"

    def dry_run_path(self, study: str) -> Path:
        """Return where the result of a request's last dry run is kept."""
        return self._folder / study / "dry_run.json"

    def _whole(self, study: str) -> StoredRequest | None:
        try:
            return self.get(study)
        except (UntrustedError, PlanError):
            return None

    def _decision(self, folder: Path, study: str) -> RequestDecision:
        path = folder / "decision.json"
        if not path.exists():
            return RequestDecision(study=study, member=self._member, decision="pending")
        return RequestDecision.model_validate_json(path.read_bytes())
