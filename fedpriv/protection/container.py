"""The one file format of sealed updates and aggregates: safetensors, with the header as metadata.

A file is written as a stream and read by rows, so that memory stays bounded whatever its size. Nothing in it is
parsed before its size and digest have been compared with what its sender signed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fedpriv.errors import ContainerError, FedprivError
from fedpriv.files import PRIVATE_FILE, canonical_json, file_sha256, parse_json, sync_folder

FORMAT = "fedpriv-container"
VERSION = "1"
MAX_HEADER_BYTES = 2**20
_DTYPES = {"uint8": "U8", "uint64": "U64", "float32": "F32", "float64": "F64"}
_NAMES = {code: name for name, code in _DTYPES.items()}
_LARGEST = 10**13
_GONE = "It was not used"


@dataclass(frozen=True)
class Stream:
    """An array that is written piece by piece.

    Attributes
    ----------
    dtype : str
        ``uint8``, ``uint64``, ``float32`` or ``float64``.
    shape : tuple of int
        The whole array's shape; a first entry of -1 means as many rows as come.
    pieces : iterable of ndarray
        Consecutive rows. Arrays are consumed in the order in which they stand in the mapping.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]


def write_container(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray | Stream]
) -> tuple[str, int]:
    """Write a container atomically, readable by its owner only (mode 0600).

    Parameters
    ----------
    path : Path
        Where to; replaced if it is there.
    header : mapping
        JSON values.
    arrays : mapping of str to ndarray or Stream
        In the order in which they are written; wider types should come first, so that all rows are aligned.

    Returns
    -------
    tuple of str and int
        SHA-256 (hex) and size in bytes of the file.

    Raises
    ------
    ValueError
        If a dtype is not one of the four, or a stream does not deliver the rows it promised.
    """
    streams = {name: _as_stream(array) for name, array in arrays.items()}
    room = len(_head(header, streams, dict.fromkeys(streams, _LARGEST), 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(room))
            sizes = {name: _write_pieces(file, stream) for name, stream in streams.items()}
            size = file.tell()
            file.seek(0)
            file.write(_head(header, streams, sizes, room))
            file.flush()
            os.fsync(file.fileno())
        digest = file_sha256(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)
    return digest, size


class Container:
    """A container that is open for reading; made by :func:`open_container`.

    Attributes
    ----------
    header : dict
        The JSON header, as claimed by whoever wrote it.
    """

    def __init__(self, handle: Any, path: Path) -> None:
        self._handle = handle
        self._path = path
        self.header = _read_header(handle.metadata(), path)

    @property
    def names(self) -> set[str]:
        """The names of its arrays."""
        return set(self._handle.keys())

    def require(self, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Check that there are exactly these arrays, each of this dtype and shape (-1 matches any extent).

        Raises
        ------
        ContainerError
            Naming the first difference.
        """
        names = self.names
        if names != set(shapes):
            raise _refused(self._path, f"holds {_listed(names)} in place of {_listed(set(shapes))}")
        for name, (dtype, shape) in shapes.items():
            view = self._handle.get_slice(name)
            actual = (_NAMES.get(view.get_dtype(), view.get_dtype()), tuple(view.get_shape()))
            fits = len(actual[1]) == len(shape) and all(b in (-1, a) for a, b in zip(actual[1], shape, strict=True))
            if actual[0] != dtype or not fits:
                raise _refused(self._path, f"holds {name} as {actual[0]} {actual[1]}, not {dtype} {shape}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array that :meth:`require` has accepted."""
        return tuple(self._handle.get_slice(name).get_shape())

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return a copy of the rows ``start`` to ``stop`` of an array that :meth:`require` has accepted."""
        stop = min(stop, self.shape(name)[0])
        if start >= stop:
            return np.empty((0, *self.shape(name)[1:]), _NAMES[self._handle.get_slice(name).get_dtype()])
        with _reading(self._path):
            return np.array(self._handle.get_slice(name)[start:stop])


@contextlib.contextmanager
def open_container(
    path: Path, *, max_bytes: int, expect_sha256: str, expect_bytes: int | None = None
) -> Iterator[Container]:
    """Open a container after comparing its size and its digest with what was signed.

    *Guarantee*: no byte is parsed unless the whole file has the expected SHA-256.
    *Assumption*: the file lies in a folder that only this user can write to, so it does not change meanwhile.

    Raises
    ------
    ContainerError
        If it is missing, too large, another file than expected, of another version, or malformed.
    """
    with contextlib.ExitStack() as stack:
        with _reading(path):
            size = path.stat().st_size
            if size > max_bytes or (expect_bytes is not None and size != expect_bytes):
                allowed = f"{expect_bytes}" if expect_bytes is not None else f"at most {max_bytes}"
                raise _refused(path, f"has {size} bytes; {allowed} were announced")
            if file_sha256(path) != expect_sha256:
                raise _refused(path, "is not the file that was signed (its digest differs)")
            container = Container(stack.enter_context(safe_open(path, framework="numpy")), path)
        yield container


def read_container(
    path: Path, *, max_bytes: int, expect_sha256: str, dtypes: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a small container whole: its header and exactly the arrays named in ``dtypes``, of any shape.

    Raises
    ------
    ContainerError
        As :func:`open_container`, or if names or dtypes differ.
    """
    with open_container(path, max_bytes=max_bytes, expect_sha256=expect_sha256) as container:
        ranks = {name: len(container.shape(name)) for name in container.names}
        container.require({name: (dtype, (-1,) * ranks.get(name, 1)) for name, dtype in dtypes.items()})
        return container.header, {name: container.rows(name, 0, container.shape(name)[0]) for name in dtypes}


def _as_stream(array: np.ndarray | Stream) -> Stream:
    stream = array if isinstance(array, Stream) else Stream(array.dtype.name, array.shape, (array,))
    if stream.dtype not in _DTYPES:
        raise ValueError(f"a container cannot hold {stream.dtype}")
    return stream


def _write_pieces(file: Any, stream: Stream) -> int:
    size = 0
    for piece in stream.pieces:
        if piece.dtype.name != stream.dtype or piece.shape[1:] != stream.shape[1:]:
            raise ValueError(
                f"a piece of {piece.dtype.name} {piece.shape} in an array of {stream.dtype} {stream.shape}"
            )
        data = np.ascontiguousarray(piece, dtype=piece.dtype.newbyteorder("<"))
        file.write(data.data if data.size else b"")
        size += data.nbytes
    if stream.shape[0] >= 0 and size != np.dtype(stream.dtype).itemsize * int(np.prod(stream.shape)):
        raise ValueError(f"an array of shape {stream.shape} came with {size} bytes")
    return size


def _head(header: Mapping[str, Any], streams: Mapping[str, Stream], sizes: Mapping[str, int], room: int) -> bytes:
    """Return the first bytes of the file, padded with blanks to ``room`` (or, if 0, to the next multiple of 8)."""
    text = canonical_json(dict(header)).decode()
    head: dict[str, Any] = {"__metadata__": {"format": FORMAT, "version": VERSION, "header": text}}
    start = 0
    for name, stream in streams.items():
        row = np.dtype(stream.dtype).itemsize * int(np.prod(stream.shape[1:]))
        shape = [sizes[name] // row if stream.shape[0] < 0 else stream.shape[0], *stream.shape[1:]]
        end = start + sizes[name]
        head[name] = {"dtype": _DTYPES[stream.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    body = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(body)} bytes")
    length = (room or 8 + -(-len(body) // 8) * 8) - 8
    return struct.pack("<Q", length) + body.ljust(length)


def _read_header(metadata: dict[str, str] | None, path: Path) -> dict[str, Any]:
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        raise _refused(path, "is not a container of fedpriv")
    if metadata.get("version") != VERSION:
        raise ContainerError(
            f"{path.name} is of a newer format than version {VERSION}", kept=_GONE, todo="upgrade fedpriv"
        )
    try:
        header = parse_json(metadata.get("header", "").encode(), source=path.name, max_bytes=MAX_HEADER_BYTES)
    except (FedprivError, UnicodeEncodeError) as error:
        raise _refused(path, f"has an unreadable header ({error})") from error
    if not isinstance(header, dict) or set(metadata) != {"format", "version", "header"}:
        raise _refused(path, "has an unreadable header")
    return header


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _refused(path, f"cannot be read ({error})") from error


def _refused(path: Path, what: str) -> ContainerError:
    return ContainerError(f"{path.name} {what}", kept=_GONE, todo="ask its sender to publish it again")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))[:200] or "nothing"
