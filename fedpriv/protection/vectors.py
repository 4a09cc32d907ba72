"""Long vectors that are read and written by pieces: in a file, and in memory that worker processes see too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.files import open_temporary, sync_folder, write_at

_FLOAT = np.dtype("<f4")


class VectorFile:
    """Little-endian float32 values in a file, which worker processes open for themselves."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._path, self._writable = path, writable
        self._descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)

    def __reduce__(self) -> tuple[Callable[..., VectorFile], tuple[Path, bool]]:
        return _reopened, (self._path, self._writable)  # a worker opens the file itself

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was never opened
            os.close(self._descriptor)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the values ``start`` to ``stop``: float32, shape (stop - start,)."""
        data = os.pread(self._descriptor, _FLOAT.itemsize * (stop - start), _FLOAT.itemsize * start)
        return np.frombuffer(data, _FLOAT).astype(np.float32)

    def write(self, start: int, values: np.ndarray) -> None:
        """Write float32 values from ``start`` on."""
        write_at(self._descriptor, values.astype(_FLOAT).tobytes(), _FLOAT.itemsize * start)

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._descriptor)


def open_vector(path: Path, number: int) -> VectorFile:
    """Open a vector of ``number`` values for reading.

    Raises
    ------
    ProtectionError
        If the file is missing or has another size.
    """
    try:
        if path.stat().st_size != _FLOAT.itemsize * number:
            raise ProtectionError(f"{path.name} does not hold {number} values", kept="Nothing was sealed")
        return VectorFile(path)
    except FileNotFoundError as error:
        raise ProtectionError(f"{path.name} is not there", kept="Nothing was sealed") from error


@contextlib.contextmanager
def new_vector(path: Path, number: int) -> Iterator[VectorFile]:
    """Write a new vector of ``number`` values, zeros at first, atomically, readable by its owner only (mode 0600)."""
    temporary, descriptor = open_temporary(path)
    try:
        os.ftruncate(descriptor, _FLOAT.itemsize * number)
        yield VectorFile(temporary, writable=True)
        os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _reopened(path: Path, writable: bool) -> VectorFile:
    return VectorFile(path, writable=writable)


class SharedVector:
    """float32 values that this process and its workers see; made by :func:`shared_vector`.

    Attributes
    ----------
    values : ndarray of float32, shape (n,)
    """

    def __init__(
        self, values: np.ndarray, memory: SharedMemory | None = None, source: np.ndarray | None = None
    ) -> None:
        self.values, self._memory, self._source = values, memory, source

    def show(self, span: slice) -> None:
        """Let workers see a part of the vector that this was made for."""
        if self._source is not None:
            self.values[span] = self._source[span]

    def __reduce__(self) -> tuple[Callable[..., SharedVector], tuple[str, int]]:
        if self._memory is None:
            raise TypeError("this vector is not in shared memory")
        return _attached, (self._memory.name, self.values.size)  # the name goes to a worker, the values stay

    def close(self) -> None:
        """Let go of the memory, which cannot be closed while an array looks at it."""
        self.values = np.empty(0, np.float32)
        if self._memory is not None:
            self._memory.close()

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def shared_vector(values: np.ndarray, *, workers: int) -> Iterator[SharedVector]:
    """Have room for ``values`` (float32) that worker processes see while the block runs.

    With one worker the vector is ``values`` itself. With more it is shared memory, given back at the end; it holds what
    :meth:`SharedVector.show` has copied, so that copying goes on beside the work, and what workers write.
    """
    if workers == 1:
        yield SharedVector(values)
        return
    memory = SharedMemory(create=True, size=max(values.nbytes, 1))
    vector = SharedVector(_floats(memory, values.size), memory, values)
    try:
        yield vector
    finally:
        vector.close()
        memory.unlink()


def _attached(name: str, size: int) -> SharedVector:
    memory = SharedMemory(name)
    return SharedVector(_floats(memory, size), memory)


def _floats(memory: SharedMemory, size: int) -> np.ndarray:
    return np.ndarray((size,), np.float32, buffer=memory.buf)
