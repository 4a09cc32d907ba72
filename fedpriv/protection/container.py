"""The one file format of sealed updates and aggregates: safetensors, with the header as metadata.

A file holds one array of bytes for each group of parameters, one row a block. It is written and read by rows, so that
memory stays bounded whatever its size. Nothing in it is parsed before its size and digest have been
compared with what its sender signed. ``docs/protocol.md`` describes every byte.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv.errors import ContainerError, FedprivError, UntrustedError
from fedpriv.files import canonical_json, file_sha256, open_temporary, parse_json, sync_folder, write_at

FORMAT = "fedpriv-container"
VERSION = "4"
MAX_HEADER_BYTES = 2**20
Shape = tuple[int, int]
"""Rows, and bytes of a row."""

_LENGTH = struct.Struct("<Q")
_KEPT = "It was not used"


class Draft:
    """A container that is being written; made by :func:`new_container`.

    Attributes
    ----------
    path : Path
        The temporary file, which several processes may write to at once.
    sha256, size_bytes : str and int
        Of the finished file, known after the block that writes it.
    """

    def __init__(self, path: Path, offsets: Mapping[str, int], size_bytes: int) -> None:
        self.path, self.size_bytes, self.sha256 = path, size_bytes, ""
        self._offsets = dict(offsets)
        self._descriptor = os.open(path, os.O_WRONLY)

    def __reduce__(self) -> tuple[type[Draft], tuple[Path, dict[str, int], int]]:
        return Draft, (self.path, self._offsets, self.size_bytes)  # a worker opens the file itself

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was never opened
            os.close(self._descriptor)

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._descriptor)

    def write(self, name: str, first: int, rows: np.ndarray) -> None:
        """Write rows (uint8, shape (rows, bytes of a row)) from row ``first`` on."""
        write_at(self._descriptor, rows.tobytes(), self._offsets[name] + first * rows.shape[1])


@contextlib.contextmanager
def new_container(path: Path, header: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Iterator[Draft]:
    """Write a container atomically, readable by its owner only (mode 0600); the block writes all its rows.

    Parameters
    ----------
    path : Path
        Where to; replaced if it is there, and only if the block ends without an error.
    header : mapping
        JSON values.
    shapes : mapping of str to tuple of int
        Rows and bytes of a row of each array, in the order in which they stand in the file.
    """
    temporary, descriptor = open_temporary(path)
    try:
        head = _head(header, shapes)
        offsets, size = {}, len(head)
        for name, shape in shapes.items():
            offsets[name] = size
            size += math.prod(shape)
        os.ftruncate(descriptor, size)
        write_at(descriptor, head, 0)
        draft = Draft(temporary, offsets, size)
        yield draft
        os.fsync(descriptor)
        draft.sha256 = file_sha256(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


class Container:
    """A container that is open for reading; made by :func:`open_container`.

    Attributes
    ----------
    header : dict
        The JSON header, as claimed by whoever wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reading(path):
            self._descriptor = os.open(path, os.O_RDONLY)
        self.header, self._arrays = self._parse(os.fstat(self._descriptor).st_size)

    def __reduce__(self) -> tuple[type[Container], tuple[Path]]:
        return Container, (self._path,)  # a worker opens the file itself

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was never opened
            os.close(self._descriptor)

    def require(self, shapes: Mapping[str, Shape]) -> None:
        """Check that there are exactly these arrays, each of this shape.

        Raises
        ------
        ContainerError
            Naming the first difference.
        """
        if set(self._arrays) != set(shapes):
            raise _refused(self._path, f"holds {_listed(self._arrays)} in place of {_listed(shapes)}")
        for name, shape in shapes.items():
            if self._arrays[name][1] != shape:
                raise _refused(self._path, f"holds {name} as {self._arrays[name][1]}, not {shape}")

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return the rows ``start`` to ``stop`` of an array that :meth:`require` has accepted.

        Returns
        -------
        ndarray of uint8, shape (stop - start, bytes of a row)
        """
        offset, (_, width) = self._arrays[name]
        data = self._read(offset + start * width, (stop - start) * width)
        return np.frombuffer(data, np.uint8).reshape(stop - start, width)

    def _read(self, offset: int, size: int) -> bytes:
        with _reading(self._path):
            data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise _refused(self._path, "is shorter than it says")
        return data

    def _parse(self, size: int) -> tuple[dict[str, Any], dict[str, tuple[int, Shape]]]:
        """Return the header, and where each array starts and its shape; every byte is accounted for."""
        (length,) = _LENGTH.unpack(self._read(0, _LENGTH.size))
        if length > min(MAX_HEADER_BYTES, size - _LENGTH.size):
            raise _refused(self._path, "has a header of an impossible size")
        try:
            text = self._read(_LENGTH.size, length)
            head = parse_json(text, source=self._path.name, max_bytes=MAX_HEADER_BYTES)
            header = _metadata(self._path, head.pop("__metadata__"))
            end = start = _LENGTH.size + length
            arrays: dict[str, tuple[int, Shape]] = {}
            for name, entry in head.items():
                shape = (_extent(entry["shape"][0]), _extent(entry["shape"][1]))
                place = [end - start, end - start + math.prod(shape)]
                if entry != {"dtype": "U8", "shape": list(shape), "data_offsets": place}:
                    raise _refused(self._path, f"holds {name} in a way that no container does")
                arrays[name] = (end, shape)
                end += math.prod(shape)
            if text != _head(header, {name: shape for name, (_, shape) in arrays.items()})[_LENGTH.size :]:
                raise _refused(self._path, "has its header in another spelling than every container")
        except ContainerError:
            raise
        except (UntrustedError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise _refused(self._path, f"has an unreadable header ({error!r})") from error
        if end != size:
            raise _refused(self._path, f"holds {end} bytes by its header and {size} in truth")
        return header, arrays


def open_container(path: Path, *, max_bytes: int, expect_sha256: str, expect_bytes: int | None = None) -> Container:
    """Open a container after comparing its size and its digest with what was signed.

    *Guarantee*: no byte is parsed unless the whole file has the expected SHA-256.
    *Assumption*: the file lies in a folder that only this user can write to, so it does not change meanwhile.

    Raises
    ------
    ContainerError
        If it is missing, too large, another file than expected, of another version, or malformed.
    """
    with _reading(path):
        size = path.stat().st_size
        if size > max_bytes or (expect_bytes is not None and size != expect_bytes):
            allowed = f"{expect_bytes}" if expect_bytes is not None else f"at most {max_bytes}"
            raise _refused(path, f"has {size} bytes; {allowed} were announced")
        if file_sha256(path) != expect_sha256:
            raise _refused(path, "is not the file that was signed (its digest differs)")
    return Container(path)


def _head(header: Mapping[str, Any], shapes: Mapping[str, Shape]) -> bytes:
    """Return the first bytes of the file, padded with blanks to a multiple of 8."""
    text = canonical_json(dict(header)).decode()
    head: dict[str, Any] = {"__metadata__": {"format": FORMAT, "version": VERSION, "header": text}}
    start = 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        head[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    body = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    body = body.ljust(-(-len(body) // 8) * 8)
    if len(body) > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def _metadata(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise _refused(path, "is not a container of fedpriv")
    if metadata.get("version") != VERSION:
        version = str(metadata.get("version"))[:16]
        what = f"{path.name} is of format version {version!r}, and this fedpriv reads version {VERSION}"
        raise ContainerError(what, kept=_KEPT, todo="run the same version of fedpriv at all parties")
    try:
        header = parse_json(metadata["header"].encode(), source=path.name, max_bytes=MAX_HEADER_BYTES)
    except (FedprivError, UnicodeEncodeError) as error:
        raise _refused(path, f"has an unreadable header ({error})") from error
    if not isinstance(header, dict) or set(metadata) != {"format", "version", "header"}:
        raise _refused(path, "has an unreadable header")
    return header


def _extent(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError("an extent is no number")
    return value


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(path, f"cannot be read ({error})") from error


def _refused(path: Path, what: str) -> ContainerError:
    return ContainerError(f"{path.name} {what}", kept=_KEPT, todo="ask its sender to publish it again")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))[:200] or "nothing"
