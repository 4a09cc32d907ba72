"""Examples as JSON lines, made for a part of the patients at a time: each part whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedpriv.clinical.examples import TABLES, Example, narratives
from fedpriv.clinical.record import Record
from fedpriv.files import PRIVATE_FILE, write_atomic
from fedpriv.study.section import Section

_COPY_LINES = 1000


class Side(Section):
    """One file of examples."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1)
    patients: int = Field(ge=1)
    admissions: int = Field(ge=1)
    examples: int = Field(ge=1)
    from_notes: int = Field(ge=0)


class _Part(Section):
    """What a part holds of each file: patients, examples, those from notes."""

    counts: dict[str, tuple[int, int, int]]


def write_part(record: Record, number: int, sides: Mapping[str, Sequence[int]], work: Path) -> None:
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
    """
    done = work / f"part-{number}.json"
    if done.exists():
        return
    of_patient: dict[int, list[Example]] = {}
    with record.bucket(number) as tables:
        for narrative in narratives(tables):
            of_patient.setdefault(narrative.subject_id, []).append(narrative)
    counts: dict[str, tuple[int, int, int]] = {}
    for name, subjects in sides.items():
        here = [of_patient[subject] for subject in subjects if subject in of_patient]
        write_atomic(work / f"part-{number}-{name}", example_lines(map(_texts, here)), durable=False)
        told = [narrative for group in here for narrative in group]
        counts[name] = (len(here), len(told), sum(narrative.source != TABLES for narrative in told))
    write_atomic(done, _Part(counts=counts).model_dump_json().encode())


def join_parts(work: Path, name: str, parts: int) -> Side:
    """Write the parts of a file one after the other to ``work / name``, and return what is in it."""
    digest, size, patients, examples, from_notes = hashlib.sha256(), 0, 0, 0, 0
    descriptor = os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as whole:
        for number in range(parts):
            with (work / f"part-{number}-{name}").open("rb") as part:
                while lines := list(_take(part)):
                    data = b"".join(_renumbered(line, patients) for line in lines)
                    digest.update(data)
                    size += len(data)
                    whole.write(data)
            here = _counts(work / f"part-{number}.json")[name]
            patients, examples, from_notes = patients + here[0], examples + here[1], from_notes + here[2]
        whole.flush()
        os.fsync(whole.fileno())
    return Side(
        sha256=digest.hexdigest(),
        size_bytes=size,
        patients=patients,
        admissions=examples,
        examples=examples,
        from_notes=from_notes,
    )


def example_lines(patients: Iterable[Iterable[str]]) -> bytes:
    """Return examples as JSON lines, ``{"patient": ..., "text": ...}`` each.

    Parameters
    ----------
    patients : iterable of iterables of str
        The texts of each patient; the first patient gets the number 0.
    """
    examples = ({"patient": number, "text": text} for number, texts in enumerate(patients) for text in texts)
    return b"".join(json.dumps(example, ensure_ascii=False).encode() + b"\n" for example in examples)


def _texts(group: Iterable[Example]) -> list[str]:
    return [narrative.text for narrative in group]


def _take(part: Any) -> Iterable[bytes]:
    for _ in range(_COPY_LINES):
        line = part.readline()
        if not line:
            return
        yield line


_START = b'{"patient": '


def _renumbered(line: bytes, patients: int) -> bytes:
    """Return a line of a part with its patient counted from the first part on."""
    if not patients:
        return line
    number, rest = line[len(_START) :].split(b",", 1)
    return _START + str(int(number) + patients).encode() + b"," + rest


def _counts(path: Path) -> dict[str, tuple[int, int, int]]:
    try:
        return _Part.model_validate_json(path.read_bytes()).counts
    except ValidationError as error:
        raise OSError(f"{path.name} is damaged") from error
