"""What was measured in one case, and the folder in which the records of a comparison are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from fedpriv.errors import ExistsError, UntrustedError
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.made import Made
from fedpriv.files import read_json, write_json
from fedpriv.study.section import Section

How = Literal["processes", "one process"]


class Cost(Section):
    """What the rounds of a case took, from the first to the last loss, on all parties together.

    ``training_cpu_s``  CPU seconds of training workers: loading the model, training, evaluating
    ``other_cpu_s``     CPU seconds of the parties' own processes: protection, protocol, the store
    ``wall_s``          seconds by the clock
    ``peak_bytes``      most memory that one process had; ``peak_all_bytes`` of all processes at one time
    ``parts_s``         seconds of a round by part (mean over domains and rounds), as the study reports them
    ``load``            mean number of processes that ran or waited in the minute before the end
    """

    training_cpu_s: float = Field(ge=0)
    other_cpu_s: float = Field(ge=0)
    wall_s: float = Field(ge=0)
    peak_bytes: int = Field(ge=0)
    peak_all_bytes: int = Field(ge=0)
    parts_s: dict[str, float] = Field(default_factory=dict)
    load: float = Field(ge=0)

    @property
    def cpu_s(self) -> float:
        """All CPU seconds."""
        return self.training_cpu_s + self.other_cpu_s


class Quality(Section):
    """How good the adapter is on the held-out notes of all domains, as one evaluator finds for every method.

    Of ``local-only`` the means over its adapters. ``loss`` is in nats a token, token-weighted over the domains;
    ``auroc`` is of a question, over all held-out patients; None where a class has too few.
    """

    loss_before: float
    loss: float
    loss_by_domain: dict[str, float]
    tokens: int = Field(ge=1)
    auroc: float | None = None
    auroc_se: float | None = None


class Record(Section):
    """One case: what it reached and what it cost.

    ``bytes_up`` is what a domain sends in one round (mean over rounds), ``bytes_down`` what it fetches. Of
    ``centralised`` they are the training notes, sent once, and nothing. ``made`` is None in older records.
    """

    record_version: Literal[1] = 1
    case: Case
    how: How
    parameters: int = Field(ge=0)
    rounds: int = Field(ge=1)
    bytes_up: int = Field(ge=0)
    bytes_down: int = Field(ge=0)
    cost: Cost
    quality: Quality
    weights: dict[str, float] = Field(default_factory=dict)
    link_s: float | None = Field(default=None, description="virtual seconds of the study behind made-up links")
    made: Made | None = None


class Settings(Section):
    """What all records of a folder have in common; figures of other settings belong into another folder."""

    settings_version: Literal[1] = 1
    model: str
    model_digest: str
    tables: str = Field(description="SHA-256 over the names and digests of the tables; of made-up ones their seed")
    rounds: int
    steps: int
    max_tokens: int


S = TypeVar("S", bound=Section)


class Records:
    """The folder of a comparison: settings, and one JSON file for each case that is done.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    settings : Settings
        Those of the records that are to come.

    Raises
    ------
    ExistsError
        If the folder holds records of other settings, or something else.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        path = folder / "settings.json"
        if not path.exists():
            if folder.exists() and any(folder.iterdir()):
                raise ExistsError(
                    f"{folder} holds something that is no comparison",
                    kept="It was left as it is",
                    todo="give another folder with --out",
                )
            write_json(path, settings.model_dump(mode="json"), mode=0o644)
        elif (other := self._read(path, Settings)) != settings:
            changed = [name for name in Settings.model_fields if getattr(other, name) != getattr(settings, name)]
            raise ExistsError(
                f"{folder} holds a comparison with other settings ({', '.join(changed)})",
                kept="It was left as it is",
                todo="give another folder with --out, or the settings of its settings.json",
            )

    def path(self, kind: str, name: str) -> Path:
        """Return the file of a record."""
        return self.folder / kind / f"{name}.json"

    def keep(self, kind: str, name: str, record: Section) -> None:
        """Write a record, whole or not at all."""
        write_json(self.path(kind, name), record.model_dump(mode="json"), mode=0o644)

    def find(self, kind: str, name: str, of: type[S]) -> S | None:
        """Return a record that is there, or None.

        Raises
        ------
        ExistsError
            If the file is not what this version writes.
        """
        path = self.path(kind, name)
        return self._read(path, of) if path.exists() else None

    def every(self, kind: str, of: type[S]) -> list[S]:
        """Return all records of a kind, by their names.

        Raises
        ------
        ExistsError
            If a file is not what this version writes.
        """
        return [self._read(path, of) for path in sorted((self.folder / kind).glob("*.json"))]

    @staticmethod
    def _read(path: Path, of: type[S]) -> S:
        try:
            return of.model_validate(read_json(path), strict=False)
        except (OSError, ValueError, ValidationError, UntrustedError) as error:
            raise ExistsError(
                f"{path} is no record that this version of fedpriv wrote",
                kept="It was left as it is",
                todo="delete it to measure it again, or give another folder with --out",
            ) from error
