"""A shard's examples as a round draws them: all encoded at once where they are few, one by one where they are many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from fedpriv.errors import TrainingError
from fedpriv.training.examples import Encoder, Example
from fedpriv.training.lines import LineFile

MOST_BYTES_AT_ONCE = 8 * 2**20
"""Of a file that is encoded as a whole, which takes some seconds. Of a larger one, only the lines drawn are."""

_MOST_UNUSABLE = 10_000


class ExampleSource(Protocol):
    """The examples of a file's lines, by index; those of texts of under two tokens are short."""

    def __len__(self) -> int: ...

    def read(self, indices: list[int]) -> list[Example]:
        """Return the examples of these indices, in their order."""
        ...


class EncodedLines:
    """Lines that are encoded whenever they are read.

    Parameters
    ----------
    path : Path
        JSON lines, see :mod:`fedpriv.training.lines`.
    encoder : Encoder
        Of the study's base model.
    """

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self._file, self._encoder = LineFile(path), encoder

    def __len__(self) -> int:
        return len(self._file)

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._file.size_bytes

    def read(self, indices: list[int]) -> list[Example]:
        """Return the examples of these indices; raises as :meth:`fedpriv.training.lines.LineFile.read`."""
        return self._encoder.encode(self._file.read(indices))


class Shard:
    """Examples of a file, by index; which ones they are depends on the file, the tokenizer and ``max_tokens`` alone.

    Of a small file the unusable lines, whose texts have fewer than two tokens, are left out before anything is drawn.
    Of a large one nobody knows them before: they count, and :meth:`draw` passes over them.

    Parameters
    ----------
    path : Path
        JSON lines, see :mod:`fedpriv.training.lines`.
    encoder : Encoder
        Of the study's base model.
    at_once : int
        Bytes; a file up to this size is encoded as a whole.
    """

    def __init__(self, path: Path, encoder: Encoder, *, at_once: int = MOST_BYTES_AT_ONCE) -> None:
        self._source = EncodedLines(path, encoder)
        self._examples: list[Example] | None = None
        if self._source.size_bytes <= at_once:
            self._examples = [e for e in self._source.read(list(range(len(self._source)))) if _usable(e)]

    def __len__(self) -> int:
        return len(self._source) if self._examples is None else len(self._examples)

    def draw(self, order: Iterator[int], count: int) -> list[Example]:
        """Return the next ``count`` usable examples of an order of indices.

        Raises
        ------
        TrainingError
            If a line is broken, or thousands in a row are unusable.
        """
        if self._examples is not None:
            return [self._examples[next(order)] for _ in range(count)]
        drawn: list[Example] = []
        tries = 0
        while len(drawn) < count:
            indices = [next(order) for _ in range(count - len(drawn))]
            drawn += [example for example in self._source.read(indices) if _usable(example)]
            tries += len(indices)
            if tries > count + _MOST_UNUSABLE:
                raise TrainingError("The shard has hardly an example of two tokens or more", todo="prepare it again")
        return drawn


def _usable(example: Example) -> bool:
    return len(example) >= 2
