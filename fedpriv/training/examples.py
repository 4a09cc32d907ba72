"""Examples of a shard as token ids, the order in which rounds draw them, and their batches."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from fedpriv.errors import TrainingError
from fedpriv.training.lines import Line, read_lines, read_patients, read_texts

if TYPE_CHECKING:
    import torch

__all__ = [
    "IGNORED",
    "Encoder",
    "Example",
    "collate",
    "encode",
    "encode_patients",
    "example_order",
    "labels_of",
    "read_lines",
    "read_patients",
    "read_texts",
]

IGNORED = -100
"""The label of a position whose next token is not to be learned."""


@dataclass(frozen=True, slots=True)
class Example(Sequence[int]):
    """Token ids, and at which positions the answers to questions stand.

    Attributes
    ----------
    ids : tuple of int
        The tokens.
    answers : tuple of int
        Positions of the answers, rising; with none, every token is to be learned.
    """

    ids: tuple[int, ...]
    answers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return self.ids[index]


class Encoder:
    """Turns lines into examples of at most ``max_tokens`` tokens, with a base model's tokenizer.

    A text without questions is cut at its end. With questions, the tokens are those of the text, cut so that all that
    follows has room, and then for each question ``"\\n{question}"`` and the first token of ``" yes"`` or ``" no"``.
    What the tokenizer puts before every text, such as a mark of its beginning, comes first.

    Raises
    ------
    TrainingError
        If the tokenizer cannot be read.
    """

    def __init__(self, model_folder: Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more particular
            raise TrainingError("The base model's tokenizer cannot be read", todo="fetch the model again") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._prefix = self._before_every_text()
        self.max_tokens = max_tokens
        self._asked: dict[tuple[str, ...], list[list[int]]] = {}

    def encode(self, lines: Sequence[str | Line]) -> list[Example]:
        """Return the example of each line; one that teaches nothing, of a text of under two tokens, is short.

        Raises
        ------
        TrainingError
            If questions leave no room for the text, or yes and no begin with the same token.
        """
        full = [line if isinstance(line, Line) else Line(line) for line in lines]
        texts = self._tokens([line.text for line in full])
        return [self._example(line, ids) for line, ids in zip(full, texts, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _before_every_text(self) -> tuple[int, ...]:
        """Return the special tokens in front of a text, none for most tokenizers; those behind it are left out."""
        alone = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        places = (place for place in range(len(whole)) if whole[place : place + len(alone)] == alone)
        return tuple(whole[: next(places, 0)])

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _example(self, line: Line, text: Sequence[int]) -> Example:
        room = self.max_tokens - len(self._prefix)
        if not line.questions:
            return Example((*self._prefix, *text[:room]))
        questions = self._questions(line.questions)
        room -= sum(len(ids) + 1 for ids in questions)
        if room < 1:
            raise TrainingError(
                f"The questions alone take more than the {self.max_tokens} tokens of an example",
                todo="raise training > max_tokens in the plan",
            )
        yes, no = self.answer_tokens
        ids, answers = [*self._prefix, *text[:room]], []
        for question, answer in zip(questions, line.answers, strict=True):
            ids += [*question, yes if answer else no]
            answers.append(len(ids) - 1)
        return Example(tuple(ids), tuple(answers))

    def _questions(self, questions: tuple[str, ...]) -> list[list[int]]:
        if questions not in self._asked:
            self._asked = {questions: self._tokens([f"\n{question}" for question in questions])}
        return self._asked[questions]

    @property
    def answer_tokens(self) -> tuple[int, int]:
        """The tokens of yes and no: the first ones of ``" yes"`` and ``" no"``."""
        yes, no = self._tokens([" yes", " no"])
        if not yes or not no or yes[0] == no[0]:
            raise TrainingError(
                "The base model's tokenizer does not tell yes from no by their first tokens",
                todo="choose another base_model for tasks with questions",
            )
        return yes[0], no[0]


def encode(model_folder: Path, lines: Sequence[str | Line], *, max_tokens: int) -> list[Example]:
    """Return the examples of texts, or of lines with questions; those of fewer than two tokens are left out."""
    return [example for example in Encoder(model_folder, max_tokens).encode(lines) if len(example) >= 2]


def encode_patients(
    model_folder: Path, patients: Sequence[Sequence[str | Line]], *, max_tokens: int
) -> list[list[Example]]:
    """Return each patient's examples, see :func:`encode`; a patient without a usable one stays, empty."""
    encoder = Encoder(model_folder, max_tokens)
    encoded = iter(encoder.encode([line for lines in patients for line in lines]))
    return [[ids for ids in itertools.islice(encoded, len(lines)) if len(ids) >= 2] for lines in patients]


def example_order(count: int, seed: int, start: int) -> Iterator[int]:
    """Yield indices into ``count`` examples for ever, from position ``start`` of the study's order on.

    Every pass over the shard is a permutation of its own, drawn from ``seed`` and the number of the pass; nothing is
    drawn twice in a pass. Round ``r`` starts at ``(r - 1) * steps * batch_size``, where the round before stopped.
    """
    position = start
    while True:
        epoch, offset = divmod(position, count)
        key = int.from_bytes(hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()[:16], "big")
        order = np.random.Generator(np.random.Philox(key=key)).permutation(count)
        for index in order[offset:]:
            yield int(index)
        position += count - offset


def labels_of(example: Sequence[int]) -> list[int]:
    """Return the next token at each position, :data:`IGNORED` where none is to be learned: at the last one always."""
    following = [*example[1:], IGNORED]
    if isinstance(example, Example) and example.answers:
        asked = {position - 1 for position in example.answers}
        return [label if position in asked else IGNORED for position, label in enumerate(following)]
    return following


def collate(batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad a batch on the right to its longest example.

    Returns
    -------
    tuple[Tensor of int64, Tensor of int64]
        Token ids and next-token labels, both (batch, longest). Labels are :data:`IGNORED` where :func:`labels_of` says
        so and in the padding. No attention mask is needed: under causal attention no token sees what follows it.
    """
    import torch

    longest = max(len(ids) for ids in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED, dtype=torch.long)
    for row, ids in enumerate(batch):
        tokens[row, : len(ids)] = torch.tensor(list(ids))
        labels[row, : len(ids)] = torch.tensor(labels_of(ids))
    return tokens, labels
