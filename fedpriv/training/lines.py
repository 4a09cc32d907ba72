"""The lines of a shard: JSON objects with a text, whose it is, and the questions that it is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import TrainingError

MAX_QUESTIONS = 256
MAX_QUESTION_LETTERS = 2000
_BLOCK_BYTES = 2**22
_ANSWERS = {"yes": True, "no": False}
_AGAIN = "prepare the shard again"


@dataclass(frozen=True, slots=True)
class Line:
    """One example as it stands in the file.

    Attributes
    ----------
    text : str
        What is told.
    patient : int or None
        Whose it is: a number that means nothing outside the file; None where it is not said.
    questions : tuple of str
        What is asked about the text, the same in every line of a file; none where the text itself is to be learned.
    answers : tuple of bool
        Whether the answer to each question is yes.
    """

    text: str
    patient: int | None = None
    questions: tuple[str, ...] = ()
    answers: tuple[bool, ...] = ()


class LineFile:
    """A JSON-lines file of which single lines are read, however large it is.

    Opening it looks for the ends of the lines and nothing else: about a second a gigabyte, and eight bytes of memory a
    line. Blank lines do not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._starts, self._numbers, self.size_bytes = _line_starts(path)
        except OSError as error:
            raise _unreadable(path) from error
        self._questions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, indices: list[int]) -> list[Line]:
        """Return the lines of these indices, in their order.

        Raises
        ------
        TrainingError
            If a line is not an example or asks other questions than those before; the message has its number, not its
            text.
        """
        lines = []
        try:
            with self._path.open("rb") as stream:
                for index in indices:
                    stream.seek(int(self._starts[index]))
                    lines.append(self._parse(stream.readline(), int(self._numbers[index])))
        except OSError as error:
            raise _unreadable(self._path) from error
        return lines

    def _parse(self, data: bytes, number: int) -> Line:
        line = parse_line(data, number, self._path.name)
        if self._questions is None:
            self._questions = line.questions
        elif line.questions != self._questions:
            raise _bad_line(number, self._path.name, "asks other questions than the lines before it")
        return line


def _line_starts(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return where each line that is not blank starts, its number from 1 on, and the size of the file in bytes."""
    ends: list[NDArray[np.int64]] = []
    returns: list[NDArray[np.int64]] = []
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            letters = np.frombuffer(block, np.uint8)
            ends.append(np.flatnonzero(letters == ord("\n")) + size)
            returns.append(np.flatnonzero(letters == ord("\r")) + size)
            size += len(block)
    stops = np.concatenate([*ends, np.array([size], np.int64)])
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1] + 1])
    blank = (stops == starts) | ((stops == starts + 1) & np.isin(starts, np.concatenate([*returns, stops[:0]])))
    full = ~blank
    return starts[full], np.flatnonzero(full) + 1, size


def read_lines(path: Path, *, limit: int | None = None) -> list[Line]:
    """Return the first ``limit`` lines of a file, by default all.

    Raises
    ------
    TrainingError
        If the file cannot be read, or as :meth:`LineFile.read`.
    """
    file = LineFile(path)
    return file.read(list(range(len(file) if limit is None else min(limit, len(file)))))


def read_texts(path: Path, *, limit: int | None = None) -> list[str]:
    """Return the texts alone, without their questions; see :func:`read_lines`."""
    return [line.text for line in read_lines(path, limit=limit)]


def read_patients(path: Path) -> list[list[Line]]:
    """Return all lines, those of one patient together.

    Raises
    ------
    TrainingError
        As :func:`read_lines`; also if a line does not say whose it is: a bound on what one patient contributes would
        bound nothing then.
    """
    patients: dict[int, list[Line]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.patient is None:
            raise TrainingError(f"Example {number} of {path.name} does not say which patient it is of", todo=_AGAIN)
        patients.setdefault(line.patient, []).append(line)
    return list(patients.values())


def parse_line(data: bytes, number: int, name: str) -> Line:
    """Return what one line says.

    Raises
    ------
    TrainingError
        If it is not an object with a text, or its questions and answers do not fit together.
    """
    try:
        value: Any = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise _bad_line(number, name, 'is not a JSON object with a "text"')
    patient, questions, answers = value.get("patient"), value.get("questions", []), value.get("answers", [])
    if not _asks(questions) or not _answers(answers) or len(questions) != len(answers):
        raise _bad_line(number, name, 'does not have a "yes" or "no" in "answers" for each of its "questions"')
    return Line(
        text=value["text"],
        patient=patient if type(patient) is int else None,
        questions=tuple(questions),
        answers=tuple(_ANSWERS[answer] for answer in answers),
    )


def _asks(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_QUESTIONS and all(map(_is_question, value))


def _is_question(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_QUESTION_LETTERS


def _answers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(answer, str) and answer in _ANSWERS for answer in value)


def _bad_line(number: int, name: str, what: str) -> TrainingError:
    return TrainingError(f"Line {number} of {name} {what}", todo=_AGAIN)


def _unreadable(path: Path) -> TrainingError:
    return TrainingError(f"The examples in {path.name} cannot be read", todo=_AGAIN)
