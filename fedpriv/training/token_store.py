"""A shard's tokens, encoded once and kept: one file that rounds draw from without reading a text.

It is a safetensors file, named by all that its tokens depend on, with four arrays for each side of the shard: ``ids``
(int32, the examples one behind the other), ``offsets`` (int64, where each begins, and the end), ``answers`` (int32,
where in an example its answers stand) and ``patients`` (int64, whose it is; -1 where the line does not say). Every line
has its example, so that what is drawn from the file is what would be drawn from the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import TrainingError, UntrustedError
from fedpriv.files import canonical_json, file_sha256, read_json, sha256_hex, write_atomic
from fedpriv.training.examples import Encoder, Example
from fedpriv.training.lines import Line, LineFile

FORMAT = "fedpriv tokens 1"
MOST_DRAWN_BYTES = 16 * 2**20
"""Of both files, where a round draws some examples. Of more, encoding all takes longer than a study's rounds save."""

MOST_READ_BYTES = 64 * 2**20
"""Of both files, where every round reads all examples, as DP-SGD does. Of more, encoding takes minutes."""

MOST_BYTES = 2**30
"""Of the file: more than so many bytes of text can become."""

Side = Literal["train", "heldout"]
SIDES: tuple[Side, ...] = ("train", "heldout")
_LINES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 2**20
_TYPES = {"ids": "I32", "offsets": "I64", "answers": "I32", "patients": "I64"}


def tokens_name(prepared: str, model_folder: Path, max_tokens: int) -> str:
    """Return the name of the file with a shard's tokens: a digest of all that they depend on.

    Parameters
    ----------
    prepared : str
        The digest of the prepared data.
    model_folder : Path
        The base model, for its tokenizer.
    max_tokens : int
        Of one example.
    """
    tokenizer = file_sha256(model_folder / "tokenizer.json")
    depends_on = [FORMAT, prepared, tokenizer, version("tokenizers"), max_tokens]
    return f"{sha256_hex(canonical_json(depends_on))}.safetensors"


def write_tokens(path: Path, files: Mapping[Side, Path], encoder: Encoder, *, name: str) -> None:
    """Encode both sides of a shard and write the file, whole or not at all, readable by its owner only.

    Parameters
    ----------
    path : Path
        Where to.
    files : dict of Path
        JSON lines of each side, see :mod:`fedpriv.training.lines`.
    encoder : Encoder
        Of the base model.
    name : str
        From :func:`tokens_name`; it is kept in the file.

    Raises
    ------
    TrainingError
        If a line is broken.
    """
    from safetensors.numpy import save

    arrays = {f"{side}.{kind}": array for side in SIDES for kind, array in _arrays(files[side], encoder).items()}
    about = {"format": FORMAT, "name": name, "sha256": _digest(arrays)}
    write_atomic(path, save(arrays, about))


def worth_keeping(files: Mapping[Side, Path], *, all_read: bool) -> bool:
    """Whether to keep a shard's tokens: up to :data:`MOST_DRAWN_BYTES`; with ``all_read``, :data:`MOST_READ_BYTES`."""
    return sum(path.stat().st_size for path in files.values()) <= (MOST_READ_BYTES if all_read else MOST_DRAWN_BYTES)


def _arrays(path: Path, encoder: Encoder) -> dict[str, NDArray[Any]]:
    file = LineFile(path)
    ids: list[NDArray[np.int32]] = []
    answers: list[tuple[int, ...]] = []
    patients: list[int] = []
    for start in range(0, len(file), _LINES_AT_ONCE):
        lines = file.read(list(range(start, min(start + _LINES_AT_ONCE, len(file)))))
        patients += map(_patient, lines)
        for example in encoder.encode(lines):
            ids.append(np.array(example.ids, np.int32))
            answers.append(example.answers)
    return {
        "ids": np.concatenate([*ids, np.zeros(0, np.int32)]),
        "offsets": np.cumsum([0, *map(len, ids)], dtype=np.int64),
        "answers": np.array(answers, np.int32).reshape(len(answers), len(answers[0]) if answers else 0),
        "patients": np.array(patients, np.int64),
    }


def _patient(line: Line) -> int:
    if line.patient is None:
        return -1
    if not 0 <= line.patient < 2**63:
        raise TrainingError("A line of the shard has a patient's number that does not fit", todo="prepare it again")
    return line.patient


@dataclass(frozen=True)
class TokenSide:
    """The examples of one side of a shard: an :class:`fedpriv.training.shard.ExampleSource`.

    Attributes
    ----------
    ids : slice of a safetensors file
        Mapped into memory; only what is drawn is read.
    offsets : ndarray of int64, (lines + 1,)
    answers : ndarray of int32, (lines, questions)
    patients : ndarray of int64, (lines,)
    """

    ids: Any
    offsets: NDArray[np.int64]
    answers: NDArray[np.int32]
    patients: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    def read(self, indices: Sequence[int]) -> list[Example]:
        """Return the examples of these indices, in their order."""
        return [self._example(index) for index in indices]

    def _example(self, index: int) -> Example:
        start, stop = self.offsets[index : index + 2].tolist()
        ids = self.ids[start:stop].tolist() if stop > start else []
        return Example(tuple(ids), tuple(self.answers[index].tolist()))


@dataclass(frozen=True)
class Tokens:
    """A shard's tokens."""

    train: TokenSide
    heldout: TokenSide


def open_tokens(path: Path, *, model_folder: Path, max_tokens: int, name: str | None = None) -> Tokens:
    """Open a file of :func:`write_tokens` and check all of it: what it is of, its digest, and each array.

    *Guarantee*: every token is one of the model's, no example has more than ``max_tokens``, and its answers are in it.

    Parameters
    ----------
    path : Path
        The file.
    model_folder : Path
        The base model, for the size of its vocabulary.
    max_tokens : int
        Of one example.
    name : str, optional
        What the file must say that it is; by default its own name.

    Raises
    ------
    UntrustedError
        If it is missing, or not what it should be.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            about = handle.metadata() or {}
            arrays = {f"{side}.{kind}": handle.get_slice(f"{side}.{kind}") for side in SIDES for kind in _TYPES}
            if (about.get("format"), about.get("name")) != (FORMAT, name or path.name):
                _refuse(path)
            if any(array.get_dtype() != _TYPES[key.partition(".")[2]] for key, array in arrays.items()):
                _refuse(path)
            if about.get("sha256") != _digest(arrays):
                _refuse(path)
            sides = [_side(handle, side, path) for side in SIDES]
    except (OSError, SafetensorError) as error:
        raise UntrustedError(f"The tokens in {path.name} cannot be read", kept="They were not used") from error
    vocabulary = _vocabulary(model_folder)
    for side in sides:
        _check(side, path, vocabulary, max_tokens)
    return Tokens(*sides)


def _side(handle: Any, side: Side, path: Path) -> TokenSide:
    ids, offsets, answers, patients = (handle.get_slice(f"{side}.{kind}") for kind in _TYPES)
    ranks = [len(array.get_shape()) for array in (ids, offsets, answers, patients)]
    if ranks != [1, 1, 2, 1]:
        _refuse(path)
    return TokenSide(ids, *(handle.get_tensor(f"{side}.{kind}") for kind in ("offsets", "answers", "patients")))


def _check(side: TokenSide, path: Path, vocabulary: int, max_tokens: int) -> None:
    """Refuse arrays that do not fit together, or the model."""
    count, total = len(side.patients), side.ids.get_shape()[0]
    lengths = side.lengths
    if side.offsets.shape != (count + 1,) or len(side.answers) != count:
        _refuse(path)
    if side.offsets[0] != 0 or side.offsets[-1] != total or (lengths < 0).any() or (lengths > max_tokens).any():
        _refuse(path)
    places = np.concatenate([np.zeros((count, 1), np.int64), side.answers, lengths[:, None]], axis=1)
    if side.answers.size and (np.diff(places, axis=1) <= 0).any():
        _refuse(path)
    if any(((piece < 0) | (piece >= vocabulary)).any() for piece in _pieces(side.ids)):
        _refuse(path)


def _vocabulary(model_folder: Path) -> int:
    config = read_json(model_folder / "config.json")
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    if type(size) is not int:
        raise UntrustedError("The base model does not say how many tokens it knows", kept="No tokens were kept")
    return size


def _digest(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 of arrays, or of slices of a file: names, shapes, and little-endian values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {_shape(array)}\n".encode())
        for piece in _pieces(array):
            digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()


def _shape(array: Any) -> list[int]:
    return list(array.shape if isinstance(array, np.ndarray) else array.get_shape())


def _pieces(array: Any) -> Iterator[NDArray[Any]]:
    """Give an array some numbers at a time."""
    shape = _shape(array)
    rows = max(1, _NUMBERS_AT_ONCE // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0] if min(shape) else 0, rows):
        yield array[start : min(start + rows, shape[0])]


def _refuse(path: Path) -> NoReturn:
    raise UntrustedError(f"The tokens in {path.name} are not what they should be", kept="They were not used")
