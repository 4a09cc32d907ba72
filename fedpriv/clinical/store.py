"""The store of prepared examples: texts split by patient, named by what they are, checked when they are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, ValidationError

from fedpriv.clinical.example_parts import Side, join_parts, write_part
from fedpriv.clinical.harmonize import REFUSED_SHARE, Progress, harmonize, silent
from fedpriv.clinical.mapping import SchemaMapping
from fedpriv.clinical.record import Record
from fedpriv.clinical.staging import staged_folder
from fedpriv.errors import DataError, UntrustedError
from fedpriv.files import canonical_json, file_sha256, folder_lock, private_folder, read_json, sha256_hex, write_json
from fedpriv.study.section import Section

TRAIN_FILE = "train.jsonl"
HELDOUT_FILE = "heldout.jsonl"
MANIFEST_FILE = "manifest.json"
EXAMPLES_VERSION = 3

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


class _Content(Section):
    schema_version: Literal[3] = 3
    dataset: str
    seed: int
    heldout_fraction: float
    record: _Hex
    train: Side
    heldout: Side

    @property
    def digest(self) -> str:
        return sha256_hex(canonical_json(self.model_dump()))


class _Manifest(Section):
    digest: _Hex
    content: _Content


def prepare(
    tables: Path | str,
    store: Path,
    *,
    dataset: str = "mimic-iii",
    heldout_fraction: float = 0.2,
    seed: int = 0,
    mapping: SchemaMapping | None = None,
    refused_share: float = REFUSED_SHARE,
    on_progress: Progress = silent,
) -> PreparedData:
    """Harmonise the tables, tell every admission, split the patients, and write the examples to ``<store>/<digest>/``.

    Safe to be killed at any moment: the next call goes on with the table and with the part of the patients where it
    stopped.

    Parameters
    ----------
    tables : Path or str
        Where the tables of one domain are, see :func:`fedpriv.clinical.harmonize.harmonize`; they are only read.
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
    refused_share : float
        Largest share of a table's rows that may be refused.
    on_progress : Callable[[str, float], None]
        Called with a stage in words and its done fraction; from other threads, too.

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
    try:
        record = harmonize(str(tables), store, mapping=mapping, refused_share=refused_share, on_progress=on_progress)
        with folder_lock(
            store / "prepare.lock", holder=f"the store {store}", todo="wait until it is done and try again"
        ):
            return _examples(record, store, dataset=dataset, fraction=heldout_fraction, seed=seed, tell=on_progress)
    except OSError as error:
        raise DataError(
            f"The store {store} cannot be written ({error.strerror})",
            kept="What was prepared before is unchanged",
            todo="check the disk and the permissions",
        ) from error


def _examples(record: Record, store: Path, *, dataset: str, fraction: float, seed: int, tell: Progress) -> PreparedData:
    """Write the examples of a record, a part of the patients at a time."""
    with record.tables() as tables:
        admitted = [row[0] for row in tables.rows("SELECT DISTINCT subject_id FROM admissions")]
    split = split_patients(admitted, heldout_fraction=fraction, seed=seed)
    key = sha256_hex(canonical_json([EXAMPLES_VERSION, record.digest, dataset, fraction, seed]))
    for left in (*store.glob(".*.tmp"), *(p for p in store.glob(".examples-*") if p.name != f".examples-{key[:16]}")):
        shutil.rmtree(left, ignore_errors=True)
    work = private_folder(store / f".examples-{key[:16]}")
    sides: dict[str, Sequence[int]] = {TRAIN_FILE: split[0], HELDOUT_FILE: split[1]}
    for number in range(record.bucket_count):
        tell("examples", number / record.bucket_count)
        write_part(record, number, sides, work)
    made = {name: join_parts(work, name, record.bucket_count) for name in sides}
    content = _Content(
        dataset=dataset,
        seed=seed,
        heldout_fraction=fraction,
        record=record.digest,
        train=made[TRAIN_FILE],
        heldout=made[HELDOUT_FILE],
    )
    if not (store / content.digest).exists():
        with staged_folder(store / content.digest) as temporary:
            for name in sides:
                (work / name).rename(temporary / name)
            write_json(temporary / MANIFEST_FILE, _Manifest(digest=content.digest, content=content).model_dump())
    shutil.rmtree(work, ignore_errors=True)
    tell("examples", 1.0)
    return load_prepared(store / content.digest)


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
