"""A shard's examples as a round draws them: all encoded at once where they are few, one by one where they are many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import TrainingError, UntrustedError
from fedpriv.training.examples import Encoder, Example, encode_patients, read_patients
from fedpriv.training.lines import LineFile
from fedpriv.training.token_store import Tokens, TokenSide, open_tokens

if TYPE_CHECKING:
    from fedpriv.training.local_round import LocalContext

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


class _Remembered:
    """Examples in memory."""

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, indices: list[int]) -> list[Example]:
        return [self._examples[index] for index in indices]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(example) for example in self._examples], np.int64)


class Shard:
    """Examples of a file, by index; which ones they are depends on the file, the tokenizer and ``max_tokens`` alone.

    Of a small file the unusable lines, whose texts have fewer than two tokens, are left out before anything is drawn.
    Of a large one nobody knows them before: they count, and :meth:`draw` passes over them. So it is, too, where the
    file's tokens are kept: the same order draws the same examples.

    Parameters
    ----------
    path : Path
        JSON lines, see :mod:`fedpriv.training.lines`.
    encoder : Encoder or TokenSide
        Of the study's base model, or the tokens of the file.
    at_once : int
        Bytes; a file up to this size is encoded as a whole.
    """

    def __init__(self, path: Path, encoder: Encoder | TokenSide, *, at_once: int = MOST_BYTES_AT_ONCE) -> None:
        self._usable: list[int] | None = None
        self._source: ExampleSource
        if isinstance(encoder, Encoder):
            lines = EncodedLines(path, encoder)
            if lines.size_bytes > at_once:
                self._source = lines
                return
            known = _Remembered(lines.read(list(range(len(lines)))))
        else:
            known = encoder
        self._source = known
        if path.stat().st_size <= at_once:
            self._usable = np.flatnonzero(known.lengths >= 2).tolist()

    def __len__(self) -> int:
        return len(self._source) if self._usable is None else len(self._usable)

    def draw(self, order: Iterator[int], count: int) -> list[Example]:
        """Return the next ``count`` usable examples of an order of indices.

        Raises
        ------
        TrainingError
            If a line is broken, or thousands in a row are unusable.
        """
        if self._usable is not None:
            return self._source.read([self._usable[next(order)] for _ in range(count)])
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


def kept_tokens(context: LocalContext) -> Tokens | None:
    """Return the shard's tokens, or None where none are kept, or none that can be trusted: then texts are encoded."""
    if context.tokens is None:
        return None
    try:
        return open_tokens(context.tokens, model_folder=context.model_folder, max_tokens=context.training.max_tokens)
    except UntrustedError:
        return None


def training_shard(context: LocalContext) -> Shard:
    """Return the examples to train on, from kept tokens where there are any.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a line is broken.
    """
    tokens = kept_tokens(context)
    if tokens is not None:
        return Shard(context.train, tokens.train)
    return Shard(context.train, Encoder(context.model_folder, context.training.max_tokens))


def heldout_source(context: LocalContext) -> ExampleSource:
    """Return the held-out examples, from kept tokens where there are any."""
    tokens = kept_tokens(context)
    if tokens is not None:
        return tokens.heldout
    return EncodedLines(context.heldout, Encoder(context.model_folder, context.training.max_tokens))


def training_patients(context: LocalContext) -> list[list[Example]]:
    """Return each patient's examples to train on; a patient without a usable one stays, empty.

    Raises
    ------
    TrainingError
        As :func:`fedpriv.training.lines.read_patients`.
    """
    tokens = kept_tokens(context)
    if tokens is None or (tokens.train.patients < 0).any():
        return encode_patients(
            context.model_folder, read_patients(context.train), max_tokens=context.training.max_tokens
        )
    patients: dict[int, list[Example]] = {}
    examples = tokens.train.read(range(len(tokens.train)))
    for patient, example in zip(tokens.train.patients.tolist(), examples, strict=True):
        patients.setdefault(patient, []).extend([example] if _usable(example) else [])
    return list(patients.values())
