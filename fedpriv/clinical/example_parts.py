"""Examples as JSON lines, made for a part of the patients at a time: each part whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from fedpriv.clinical.examples import TABLES, Example
from fedpriv.clinical.record import Record, RecordTables
from fedpriv.clinical.rows import LeftOut
from fedpriv.files import PRIVATE_FILE, write_atomic
from fedpriv.study.section import Section

Tell = Callable[[RecordTables, LeftOut], Iterator[Example]]

_COPY_LINES = 1000
_START = b'{"patient": '


class Side(Section):
    """One file of examples.

    Attributes
    ----------
    sha256, size_bytes
        Of the file.
    patients, admissions, examples : int
        How many are in it.
    from_notes : int
        Examples that are told from a note.
    yes : dict of str to int
        How often a question is answered with yes.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    patients: int = Field(ge=0)
    admissions: int = Field(ge=0)
    examples: int = Field(ge=0)
    from_notes: int = Field(ge=0)
    yes: dict[str, int] = Field(default_factory=dict)


class _Count(Section):
    """What a part of a file holds."""

    patients: int = 0
    admissions: int = 0
    examples: int = 0
    from_notes: int = 0
    yes: dict[str, int] = Field(default_factory=dict)


class _Part(Section):
    files: dict[str, _Count]
    left_out: dict[str, int]


def write_part(record: Record, number: int, sides: Mapping[str, Sequence[int]], work: Path, tell: Tell) -> None:
    """Write the examples of one part of the patients, unless they are there.

    Parameters
    ----------
    record : Record
        The record.
    number : int
        Of the part, see :meth:`Record.bucket`.
    sides : Mapping[str, Sequence[int]]
        File name to the patients whose examples go there; lines are in this order.
    work : Path
        Where the parts are.
    tell : Callable[[RecordTables, LeftOut], Iterator[Example]]
        Gives the examples of some patients, a patient's one after the other, and counts what it leaves out.
    """
    done = work / f"part-{number}.json"
    if done.exists():
        return
    left_out = LeftOut()
    of_patient: dict[int, list[Example]] = {}
    with record.bucket(number) as tables:
        for example in tell(tables, left_out):
            of_patient.setdefault(example.subject_id, []).append(example)
    files: dict[str, _Count] = {}
    for name, subjects in sides.items():
        here = [of_patient[subject] for subject in subjects if subject in of_patient]
        write_atomic(work / f"part-{number}-{name}", example_lines(here), durable=False)
        files[name] = _counted(here)
    write_atomic(done, _Part(files=files, left_out=dict(left_out)).model_dump_json().encode())


def join_parts(work: Path, name: str, parts: int) -> Side:
    """Write the parts of a file one after the other to ``work / name``, and return what is in it."""
    digest, size = hashlib.sha256(), 0
    counts = [_part(work, number).files[name] for number in range(parts)]
    descriptor = os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as whole:
        for number in range(parts):
            before = sum(count.patients for count in counts[:number])
            with (work / f"part-{number}-{name}").open("rb") as part:
                while data := b"".join(_renumbered(line, before) for line in itertools.islice(part, _COPY_LINES)):
                    digest.update(data)
                    size += len(data)
                    whole.write(data)
        whole.flush()
        os.fsync(whole.fileno())
    yes: Counter[str] = Counter()
    for count in counts:
        yes.update(count.yes)
    return Side(
        sha256=digest.hexdigest(),
        size_bytes=size,
        patients=sum(count.patients for count in counts),
        admissions=sum(count.admissions for count in counts),
        examples=sum(count.examples for count in counts),
        from_notes=sum(count.from_notes for count in counts),
        yes=dict(yes),
    )


def left_out_of(work: Path, parts: int) -> dict[str, int]:
    """Return what was left out of all parts, by reason."""
    total: Counter[str] = Counter()
    for number in range(parts):
        total.update(_part(work, number).left_out)
    return dict(sorted(total.items()))


def example_lines(patients: Iterable[Iterable[Example]]) -> bytes:
    """Return examples as JSON lines: ``{"patient": ..., "text": ...}``, with ``questions`` and ``answers`` if asked.

    Parameters
    ----------
    patients : iterable of iterables of Example
        The examples of each patient; the first patient gets the number 0.
    """
    return b"".join(
        json.dumps(_line(number, example), ensure_ascii=False).encode() + b"\n"
        for number, told in enumerate(patients)
        for example in told
    )


def _line(number: int, example: Example) -> dict[str, object]:
    line: dict[str, object] = {"patient": number, "text": example.text}
    return line | {"questions": example.questions, "answers": example.answers} if example.questions else line


def _counted(here: Sequence[Sequence[Example]]) -> _Count:
    told = [example for group in here for example in group]
    yes = Counter(
        question
        for example in told
        for question, answer in zip(example.questions, example.answers, strict=True)
        if answer == "yes"
    )
    return _Count(
        patients=len(here),
        admissions=len({(example.subject_id, example.admitted) for example in told}),
        examples=len(told),
        from_notes=sum(example.source != TABLES for example in told),
        yes=dict(yes),
    )


def _renumbered(line: bytes, patients: int) -> bytes:
    """Return a line of a part with its patient counted from the first part on."""
    if not patients:
        return line
    number, rest = line[len(_START) :].split(b",", 1)
    return _START + str(int(number) + patients).encode() + b"," + rest


def _part(work: Path, number: int) -> _Part:
    try:
        return _Part.model_validate_json((work / f"part-{number}.json").read_bytes())
    except ValidationError as error:
        raise OSError(f"part {number} is damaged") from error
