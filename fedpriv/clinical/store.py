"""The store of prepared examples: texts split by patient, named by what they are, checked when they are loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedpriv.clinical.examples import TABLES, Example, narratives
from fedpriv.clinical.mapping import SchemaMapping
from fedpriv.clinical.staging import staged_folder
from fedpriv.clinical.tables import ClinicalTables
from fedpriv.errors import DataError, UntrustedError
from fedpriv.files import (
    canonical_json,
    file_sha256,
    folder_lock,
    private_folder,
    read_json,
    sha256_hex,
    write_atomic,
    write_json,
)

TRAIN_FILE = "train.jsonl"
HELDOUT_FILE = "heldout.jsonl"
MANIFEST_FILE = "manifest.json"

_Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class PreparedData:
    """Prepared examples on disk; every line of a file is ``{"text": ..., "patient": ...}`` and nothing else.

    ``patient`` numbers the patients of a file from 0, in the order of the lines: which examples are of one patient, and
    nothing about who that is.

    Attributes
    ----------
    folder : Path
        The folder of the three files.
    digest : str
        SHA-256 of the manifest's content, which holds the digests of both files.
    train, heldout : Path
        The examples to train on, and those of other patients to evaluate on.
    examples, heldout_examples : int
        Lines of each file, one for an admission.
    patients, heldout_patients : int
        Patients of each file; nobody is in both.
    """

    folder: Path
    digest: str
    train: Path
    heldout: Path
    examples: int
    heldout_examples: int
    patients: int
    heldout_patients: int


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Side(_Model):
    sha256: _Hex
    size_bytes: int = Field(ge=1)
    patients: int = Field(ge=1)
    admissions: int = Field(ge=1)
    examples: int = Field(ge=1)
    from_notes: int = Field(ge=0)


class _Content(_Model):
    schema_version: Literal[2] = 2
    dataset: str
    seed: int
    heldout_fraction: float
    train: _Side
    heldout: _Side

    @property
    def digest(self) -> str:
        return sha256_hex(canonical_json(self.model_dump()))


class _Manifest(_Model):
    digest: _Hex
    content: _Content


def prepare(
    tables_folder: Path,
    store: Path,
    *,
    dataset: str = "mimic-iii",
    heldout_fraction: float = 0.2,
    seed: int = 0,
    mapping: SchemaMapping | None = None,
) -> PreparedData:
    """Tell every admission, split the patients, and write the examples to ``<store>/<digest>/``.

    Parameters
    ----------
    tables_folder : Path
        Folder with the MIMIC-III tables of one domain; it is only read.
    store : Path
        Private folder of the domain; made if it is not there.
    dataset : str, default "mimic-iii"
        Name for the manifest.
    heldout_fraction : float, default 0.2
        Share of patients kept for evaluation, above 0 and below 1; at least one patient is on each side.
    seed : int, default 0
        Chooses which patients; the same seed always chooses the same.
    mapping : SchemaMapping, optional
        How tables of another schema become those of MIMIC-III; without it they are read as they are.

    Returns
    -------
    PreparedData
        The same folder whenever the input is the same.

    Raises
    ------
    DataError
        If the tables cannot be used, or fewer than two patients have an admission (an empty shard), or the
        store cannot be written.
    LockError
        If another process prepares in the same store.
    """
    if not 0 < heldout_fraction < 1:
        raise DataError(f"heldout_fraction is {heldout_fraction}", todo="choose a share above 0 and below 1")
    with ClinicalTables.open(tables_folder, mapping) as tables:
        tables.load_details()
        told = list(narratives(tables))
    train_ids, heldout_ids = split_patients(
        {narrative.subject_id for narrative in told}, heldout_fraction=heldout_fraction, seed=seed
    )
    train, train_bytes = _side(told, train_ids)
    heldout, heldout_bytes = _side(told, heldout_ids)
    content = _Content(dataset=dataset, seed=seed, heldout_fraction=heldout_fraction, train=train, heldout=heldout)
    try:
        _write(store, content, {TRAIN_FILE: train_bytes, HELDOUT_FILE: heldout_bytes})
    except OSError as error:
        raise DataError(
            f"The store {store} cannot be written ({error.strerror})",
            kept="What was prepared before is unchanged",
            todo="check the disk and the permissions",
        ) from error
    return load_prepared(store / content.digest)


def _write(store: Path, content: _Content, files: dict[str, bytes]) -> None:
    """Write prepared examples unless they are there, and remove what a killed process left half written."""
    private_folder(store)
    with folder_lock(store / "prepare.lock", holder=f"the store {store}", todo="wait until it is done and try again"):
        for left in store.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        if (store / content.digest).exists():
            return
        with staged_folder(store / content.digest) as temporary:
            for name, data in files.items():
                write_atomic(temporary / name, data)
            write_json(temporary / MANIFEST_FILE, _Manifest(digest=content.digest, content=content).model_dump())


def load_prepared(folder: Path) -> PreparedData:
    """Check prepared examples against their manifest and return them.

    Raises
    ------
    DataError
        If a file is missing, or a digest does not match: it was damaged or changed.
    """
    manifest = _read_manifest(folder / MANIFEST_FILE)
    content = manifest.content
    if content.digest != manifest.digest:
        raise _damaged(folder / MANIFEST_FILE)
    for name, side in ((TRAIN_FILE, content.train), (HELDOUT_FILE, content.heldout)):
        path = folder / name
        try:
            matches = path.stat().st_size == side.size_bytes and file_sha256(path) == side.sha256
        except OSError:
            matches = False
        if not matches:
            raise _damaged(path)
    return PreparedData(
        folder=folder,
        digest=manifest.digest,
        train=folder / TRAIN_FILE,
        heldout=folder / HELDOUT_FILE,
        examples=content.train.examples,
        heldout_examples=content.heldout.examples,
        patients=content.train.patients,
        heldout_patients=content.heldout.patients,
    )


def split_patients(
    subject_ids: Iterable[int], *, heldout_fraction: float, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide patients into those to train on and those held out.

    The patients are ordered by SHA-256 of seed and id, and the first ``heldout_fraction`` of them (rounded, at least
    one, never all) are held out: unlike a threshold on the hash, this never leaves a side of a small shard empty.

    Returns
    -------
    tuple of tuple of int
        Train and held-out patients, each in the order of the hash, which tells nothing about the ids.

    Raises
    ------
    DataError
        If there are fewer than two patients.
    """
    ordered = sorted(set(subject_ids), key=lambda subject: sha256_hex(f"{seed}:{subject}".encode()))
    if len(ordered) < 2:
        raise DataError(
            f"empty shard: {len(ordered)} patient(s) with an admission cannot be split into train and held-out",
            kept="Nothing was written",
            todo="use tables with at least two patients, or fewer --domains",
        )
    count = min(max(round(len(ordered) * heldout_fraction), 1), len(ordered) - 1)
    return tuple(ordered[count:]), tuple(ordered[:count])


def example_lines(patients: Iterable[Iterable[str]]) -> bytes:
    """Return examples as JSON lines, ``{"text": ..., "patient": ...}`` each.

    Parameters
    ----------
    patients : iterable of iterables of str
        The texts of each patient; the first patient gets the number 0.
    """
    examples = ({"text": text, "patient": number} for number, texts in enumerate(patients) for text in texts)
    return b"".join(json.dumps(example, ensure_ascii=False).encode() + b"\n" for example in examples)


def _side(told: list[Example], subject_ids: tuple[int, ...]) -> tuple[_Side, bytes]:
    """Return one side's entry of the manifest and its lines, patients in the order given."""
    of_patient: dict[int, list[Example]] = {subject: [] for subject in subject_ids}
    for narrative in told:
        if narrative.subject_id in of_patient:
            of_patient[narrative.subject_id].append(narrative)
    chosen = [narrative for group in of_patient.values() for narrative in group]
    data = example_lines([narrative.text for narrative in group] for group in of_patient.values())
    return _Side(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        patients=len(of_patient),
        admissions=len(chosen),
        examples=len(chosen),
        from_notes=sum(narrative.source != TABLES for narrative in chosen),
    ), data


def _read_manifest(path: Path) -> _Manifest:
    problem = ""
    try:
        value: Any = read_json(path)
        return _Manifest.model_validate_json(json.dumps(value))
    except OSError as error:
        problem = error.strerror or "it cannot be opened"
    except (UntrustedError, ValidationError, ValueError):
        problem = "it is not a manifest of prepared data"
    raise DataError(f"{path} cannot be read ({problem})", todo="prepare the data again")


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is not what its manifest says: it was damaged, changed or removed",
        kept="It was not used",
        todo=f"delete the folder {path.parent} and prepare the data again",
    )
