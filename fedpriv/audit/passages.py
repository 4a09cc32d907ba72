"""Passages of the domain's own prepared examples: few, short, drawn at random, and told as training reads them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.errors import DataError
from fedpriv.files import write_atomic
from fedpriv.training.examples import Encoder, Example
from fedpriv.training.lines import Line, LineFile

_SHORTEST = 8
"""Tokens: from fewer there is nothing to tell."""

_TRIES = 40
"""Lines that are looked at for each passage wanted."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One passage, which never leaves the process but for a private file that training reads.

    Attributes
    ----------
    line : Line
        The text, with the questions about it where the task has some.
    example : Example
        What training makes of it.
    """

    line: Line
    example: Example


def draw_passages(
    shard: Path, encoder: Encoder, *, count: int, length: int, telling: Collection[int], rng: np.random.Generator
) -> list[Passage]:
    """Return up to ``count`` passages of about ``length`` tokens, of as many patients as there are.

    A passage is cut out of what training would read of a note, and told as a text anew, so that the tokens are those
    that training makes of this text.

    Parameters
    ----------
    shard : Path
        The prepared examples to train on.
    encoder : Encoder
        Of the plan's base model and ``max_tokens``.
    count, length : int
        How many, and the most tokens of the cut.
    telling : collection of int
        Tokens of which a passage has one at least, as far as there are such passages.
    rng : Generator
        Chooses lines and places.

    Raises
    ------
    DataError
        If no line has a usable passage.
    """
    file = LineFile(shard)
    order = rng.permutation(len(file))[: count * _TRIES].tolist()
    first: list[Passage] = []
    again: list[Passage] = []
    empty: list[Passage] = []
    patients: set[int | None] = set()
    telling = frozenset(telling)
    for index in order:
        (line,) = file.read([index])
        passage = _cut(line, encoder, length, rng)
        if passage is None:
            continue
        if not set(passage.example[:-1]) & telling:
            empty.append(passage)
            continue
        (again if line.patient in patients else first).append(passage)
        patients.add(line.patient)
        if len(first) == count:
            break
    found = [*first, *again, *empty][:count]
    if not found:
        raise DataError(
            "The shard has no passage to audit", todo="look at the prepared data with `fedpriv domain show`"
        )
    return found


def _cut(line: Line, encoder: Encoder, length: int, rng: np.random.Generator) -> Passage | None:
    """Return a passage of a line's text, or None where it is too short."""
    (whole,) = encoder.encode([line.text])
    start = int(rng.integers(0, max(1, len(whole) - length + 1)))
    text = encoder.decode(whole.ids[start : start + length])
    cut = Line(text, questions=line.questions, answers=line.answers)
    (example,) = encoder.encode([cut])
    return Passage(line=cut, example=example) if len(example) >= _SHORTEST else None


def write_passages(passages: Sequence[Passage], path: Path, *, silent: int = 0) -> None:
    """Write passages as a shard that training reads, each of a patient of its own, for the owner's eyes only.

    ``silent`` more patients have an empty text each, which training passes over.
    """
    lines = []
    for number, passage in enumerate(passages):
        value: dict[str, object] = {"patient": number, "text": passage.line.text}
        if passage.line.questions:
            answers = ["yes" if answer else "no" for answer in passage.line.answers]
            value |= {"questions": list(passage.line.questions), "answers": answers}
        lines.append(json.dumps(value, ensure_ascii=False) + "\n")
    asked = {"questions": list(passages[0].line.questions), "answers": ["no"] * len(passages[0].line.questions)}
    for number in range(len(passages), len(passages) + silent):
        lines.append(json.dumps({"patient": number, "text": "", **asked}) + "\n")
    write_atomic(path, "".join(lines).encode(), durable=False)
