"""Prepared examples of a shard as token batches, in an order that every round continues."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedpriv.errors import TrainingError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a position that has no next token."""


def read_texts(path: Path, *, limit: int | None = None) -> list[str]:
    """Return the texts of a JSON-lines file of ``{"text": ...}`` objects, the first ``limit`` of them.

    Raises
    ------
    TrainingError
        If the file cannot be read or a line is not such an object; the message has the line's number, not its text.
    """
    return [text for text, _ in _read_lines(path, limit=limit)]


def read_patients(path: Path) -> list[list[str]]:
    """Return the texts of a JSON-lines file of ``{"text": ..., "patient": ...}``, those of one patient together.

    Parameters
    ----------
    path : Path
        Every line names its patient by a number that means nothing outside the file.

    Raises
    ------
    TrainingError
        As :func:`read_texts`; also if a line does not say whose it is: a bound on what one patient contributes would
        bound nothing then.
    """
    texts: dict[int, list[str]] = {}
    for number, (text, patient) in enumerate(_read_lines(path), start=1):
        if patient is None:
            raise TrainingError(
                f"Example {number} of {path.name} does not say which patient it is of", todo="prepare the shard again"
            )
        texts.setdefault(patient, []).append(text)
    return list(texts.values())


def _read_lines(path: Path, *, limit: int | None = None) -> list[tuple[str, int | None]]:
    """Return text and patient (None where it is not said) of the first ``limit`` examples of a file."""
    examples: list[tuple[str, int | None]] = []
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if limit is not None and len(examples) >= limit:
                    break
                if line.strip():
                    examples.append(_example_of(line, number, path.name))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"The examples in {path.name} cannot be read", todo="prepare the shard again") from error
    return examples


def _example_of(line: str, number: int, name: str) -> tuple[str, int | None]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise TrainingError(
            f'Line {number} of {name} is not a JSON object with a "text"', todo="prepare the shard again"
        )
    patient = value.get("patient")
    return value["text"], patient if type(patient) is int else None


def encode(model_folder: Path, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
    """Return the token ids of each text, cut after ``max_tokens``; texts of fewer than two tokens are left out."""
    return [ids for ids in _encode_all(model_folder, texts, max_tokens) if len(ids) >= 2]


def encode_patients(model_folder: Path, patients: Sequence[Sequence[str]], *, max_tokens: int) -> list[list[list[int]]]:
    """Return the token ids of each patient's texts, see :func:`encode`; a patient without a usable one stays, empty."""
    encoded = iter(_encode_all(model_folder, [text for texts in patients for text in texts], max_tokens))
    return [[ids for ids in itertools.islice(encoded, len(texts)) if len(ids) >= 2] for texts in patients]


def _encode_all(model_folder: Path, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


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


def collate(batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad a batch on the right to its longest example.

    Returns
    -------
    tuple[Tensor of int64, Tensor of int64]
        Token ids and next-token labels, both (batch, longest). Labels are :data:`IGNORED` at each example's last
        token and in the padding. No attention mask is needed: under causal attention no token sees what follows it.
    """
    import torch

    longest = max(len(ids) for ids in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED, dtype=torch.long)
    for row, ids in enumerate(batch):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids) - 1] = torch.tensor(ids[1:])
    return tokens, labels
