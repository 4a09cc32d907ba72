"""The store of prepared examples: texts split by patient, named by what they are, checked when they are loaded."""

from __future__ import annotations

import datetime
import functools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from fedpriv.clinical.example_parts import Side, join_parts, left_out_of, write_part
from fedpriv.clinical.examples import Example, examples
from fedpriv.clinical.harmonize import REFUSED_SHARE, Progress, harmonize, silent
from fedpriv.clinical.labels import AnswerCounts
from fedpriv.clinical.mapping import SchemaMapping
from fedpriv.clinical.record import Record, RecordTables
from fedpriv.clinical.rows import LeftOut
from fedpriv.clinical.split import Split, SplitKind, split_by_patient, split_by_time
from fedpriv.clinical.staging import staged_folder
from fedpriv.clinical.stock_templates import stock_template
from fedpriv.errors import DataError, UntrustedError
from fedpriv.files import canonical_json, file_sha256, folder_lock, private_folder, read_json, sha256_hex, write_json
from fedpriv.study.section import Section
from fedpriv.study.task import TaskChoice
from fedpriv.study.template import Template, parse_template

TRAIN_FILE = "train.jsonl"
HELDOUT_FILE = "heldout.jsonl"
MANIFEST_FILE = "manifest.json"
EXAMPLES_VERSION = 3

_Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class PreparedData:
    """Prepared examples on disk; a line of a file is ``{"patient": ..., "text": ...}``.

    In a task with questions it has ``questions`` and ``answers``, too. ``patient`` numbers the patients of a file from
    0, in the order of the lines: which examples are of one patient, and nothing about who that is.

    Attributes
    ----------
    folder : Path
        The folder of the three files.
    digest : str
        SHA-256 of the manifest's content, which holds the digests of both files.
    train, heldout : Path
        The examples to train on, and those of other patients to evaluate on.
    examples, heldout_examples : int
        Lines of each file.
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


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How a record becomes examples.

    Attributes
    ----------
    dataset : str
        Name for the manifest.
    task : TaskChoice
        What is learned.
    template : str, optional
        The text of the request's own template; without it the task's stock one.
    heldout_fraction : float
        Share of patients kept for evaluation, above 0 and below 1; at least one patient is on each side.
    seed : int
        Chooses between patients where nothing else does.
    split : {"patient-and-time", "patient"}
        See :mod:`fedpriv.clinical.split`. It does not depend on the task: who is held out, is in every one.
    """

    dataset: str = "mimic-iii"
    task: TaskChoice = field(default_factory=TaskChoice)
    template: str | None = None
    heldout_fraction: float = 0.2
    seed: int = 0
    split: SplitKind = "patient-and-time"

    @property
    def template_text(self) -> str:
        """The template that is used."""
        return stock_template(self.task.kind) if self.template is None else self.template

    @property
    def parsed(self) -> Template:
        """The template, parsed."""
        return parse_template(self.template_text, source=self.task.template or f"{self.task.kind}.txt of fedpriv")

    def key(self, record: str) -> str:
        """Return a digest of all that the examples of the record with this digest depend on."""
        task = self.task.model_dump(mode="json") | {"template": sha256_hex(self.template_text.encode())}
        settings = [self.dataset, task, self.heldout_fraction, self.seed, self.split]
        return sha256_hex(canonical_json([EXAMPLES_VERSION, record, *settings]))

    def sides(self, admitted: dict[int, list[datetime.datetime]]) -> Split:
        """Return who is on which side."""
        chosen = {"heldout_fraction": self.heldout_fraction, "seed": self.seed}
        if self.split == "patient":
            return split_by_patient(admitted, **chosen)
        return split_by_time(admitted, **chosen)


class _Content(Section):
    schema_version: Literal[3] = EXAMPLES_VERSION
    dataset: str
    task: TaskChoice
    template: _Hex
    seed: int
    heldout_fraction: float
    split: SplitKind
    record: _Hex
    train: Side
    heldout: Side
    left_out: dict[str, int] = Field(description="reason to how many admissions, notes or codes")

    @property
    def digest(self) -> str:
        return sha256_hex(canonical_json(self.model_dump(mode="json")))


class _Manifest(Section):
    digest: _Hex
    content: _Content


def prepare(
    tables: Path | str,
    store: Path,
    *,
    telling: Telling | None = None,
    mapping: SchemaMapping | None = None,
    refused_share: float = REFUSED_SHARE,
    on_progress: Progress = silent,
) -> PreparedData:
    """Harmonise the tables, and write their examples; see :func:`harmonize` and :func:`prepare_examples`."""
    telling = telling or Telling()
    if not 0 < telling.heldout_fraction < 1:
        raise DataError(f"heldout_fraction is {telling.heldout_fraction}", todo="choose a share above 0 and below 1")
    record = harmonize(str(tables), store, mapping=mapping, refused_share=refused_share, on_progress=on_progress)
    return prepare_examples(record, store, telling, on_progress=on_progress)


def prepare_examples(record: Record, store: Path, telling: Telling, *, on_progress: Progress = silent) -> PreparedData:
    """Tell the admissions of a record, split the patients, and write the examples to ``<store>/<digest>/``.

    Safe to be killed at any moment: the next call goes on with the part of the patients where it stopped. What is there
    already is only checked.

    Parameters
    ----------
    record : Record
        The domain's record; it is only read.
    store : Path
        Private folder of the domain.
    telling : Telling
        Task, template and split.
    on_progress : Callable[[str, float], None]
        Called with a stage in words and its done fraction.

    Returns
    -------
    PreparedData
        The same folder whenever the input is the same.

    Raises
    ------
    DataError
        If fewer than two patients have an admission (an empty shard), the training side has an empty class, a side has
        no example, or the store cannot be written.
    LockError
        If another process prepares in the same store.
    """
    key = telling.key(record.digest)
    try:
        private_folder(store)
        with folder_lock(
            store / "prepare.lock", holder=f"the store {store}", todo="wait until it is done and try again"
        ):
            known = _known(store, key)
            return known or _examples(record, store, telling, key, on_progress)
    except OSError as error:
        raise DataError(
            f"The store {store} cannot be written ({error.strerror})",
            kept="What was prepared before is unchanged",
            todo="check the disk and the permissions",
        ) from error


def _examples(record: Record, store: Path, telling: Telling, key: str, on_progress: Progress) -> PreparedData:
    """Write the examples of a record, a part of the patients at a time."""
    with record.tables() as tables:
        admitted: dict[int, list[datetime.datetime]] = {}
        for subject, when in tables.stream("SELECT subject_id, admittime FROM admissions"):
            admitted.setdefault(subject, []).append(when)
    split = telling.sides(admitted)
    for left in (*store.glob(".*.tmp"), *(p for p in store.glob(".examples-*") if p.name != f".examples-{key[:16]}")):
        shutil.rmtree(left, ignore_errors=True)
    work = private_folder(store / f".examples-{key[:16]}")
    sides: dict[str, Sequence[int]] = {TRAIN_FILE: split.train, HELDOUT_FILE: split.heldout}
    tell = functools.partial(_told, telling=telling, split=split, heldout=frozenset(split.heldout))
    stage = f"{telling.task.kind.replace('_', ' ')}: telling"
    for number in range(record.bucket_count):
        on_progress(stage, number / record.bucket_count)
        write_part(record, number, sides, work, tell)
    made = {name: join_parts(work, name, record.bucket_count) for name in sides}
    content = _Content(
        dataset=telling.dataset,
        task=telling.task,
        template=sha256_hex(telling.template_text.encode()),
        seed=telling.seed,
        heldout_fraction=telling.heldout_fraction,
        split=telling.split,
        record=record.digest,
        train=made[TRAIN_FILE],
        heldout=made[HELDOUT_FILE],
        left_out=left_out_of(work, record.bucket_count),
    )
    _refuse_empty(content)
    if not (store / content.digest).exists():
        with staged_folder(store / content.digest) as temporary:
            for name in sides:
                (work / name).rename(temporary / name)
            manifest = _Manifest(digest=content.digest, content=content)
            write_json(temporary / MANIFEST_FILE, manifest.model_dump(mode="json"))
    write_json(private_folder(store / "told") / f"{key}.json", content.digest)
    shutil.rmtree(work, ignore_errors=True)
    on_progress(stage, 1.0)
    return load_prepared(store / content.digest)


def _told(
    tables: RecordTables, left_out: LeftOut, *, telling: Telling, split: Split, heldout: frozenset[int]
) -> Iterator[Example]:
    """Give the examples of some patients that are on a side."""
    for example in examples(tables, telling.task, telling.parsed, left_out):
        if split.side(example.subject_id, example.admitted, heldout):
            yield example
        else:
            left_out["example of a held-out patient from before the split"] += 1


def _refuse_empty(content: _Content) -> None:
    """Raise DataError if nothing can be learned from a side."""
    for name, side in (("to train on", content.train), ("held out", content.heldout)):
        if not side.examples:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in content.left_out.items())
            raise DataError(
                f"The task {content.task.kind} has no example {name}" + (f" (left out: {reasons})" if reasons else ""),
                kept="Nothing was written",
                todo="use tables with more patients, or another task",
            )
    AnswerCounts.of(content.task, content.train.examples, content.train.yes).refuse_empty()


def _known(store: Path, key: str) -> PreparedData | None:
    """Return what was told of these settings before, if it is still there and whole."""
    try:
        digest = read_json(store / "told" / f"{key}.json")
        return load_prepared(store / Path(str(digest)).name)
    except (OSError, UntrustedError, DataError):
        return None


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


def left_out(prepared: PreparedData) -> dict[str, int]:
    """Return what was left out when the examples were told: reason to how many. It stays at the domain."""
    return _read_manifest(prepared.folder / MANIFEST_FILE).content.left_out


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
