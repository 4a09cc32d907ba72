"""Long vectors that are read and written by pieces: in a file, and in memory that worker processes see too."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
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
    """float32 values that this process has, and its workers through memory beside it; made by :func:`shared_vector`.

    Attributes
    ----------
    away : bool
        Whether this is a worker's, which has the memory and not the values.
    """

    def __init__(self, values: np.ndarray | None, memory: VectorFile | None) -> None:
        self._values, self._memory = values, memory
        self.away = values is None

    def __reduce__(self) -> tuple[type[SharedVector], tuple[None, VectorFile]]:
        if self._memory is None:
            raise TypeError("this vector is for one process")
        return SharedVector, (None, self._memory)

    def read(self, span: slice) -> np.ndarray:
        """Return values: float32; a worker's are those that it was shown."""
        if self._values is not None:
            return self._values[span]
        return self._file.read(span.start, span.stop)

    def write(self, span: slice, values: np.ndarray) -> None:
        """Replace values; those that a worker writes are there once :meth:`take` has brought them."""
        if self._values is not None:
            self._values[span] = values
        else:
            self._file.write(span.start, values)

    def show(self, span: slice) -> None:
        """Let workers read some of this process's values."""
        if self._values is not None and self._memory is not None:
            self._memory.write(span.start, self._values[span])

    def take(self, span: slice) -> None:
        """Bring values that a worker wrote into this process's."""
        if self._values is not None:
            self._values[span] = self._file.read(span.start, span.stop)

    @property
    def _file(self) -> VectorFile:
        if self._memory is None:
            raise TypeError("this vector is for one process")
        return self._memory


@contextlib.contextmanager
def shared_vector(values: np.ndarray, *, workers: int) -> Iterator[SharedVector]:
    """Share ``values`` (float32) with worker processes while the block runs; one worker has nothing to share.

    The memory beside is a file without a name on Linux, so that it is gone when this process is killed; elsewhere it
    lies in a folder that only this user can read.
    """
    if workers == 1:
        yield SharedVector(values, None)
        return
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("fedpriv-vector")
            stack.callback(os.close, descriptor)
            path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpriv-"))) / "vector"
            path.touch(0o600)
        yield SharedVector(values, VectorFile(path, writable=True))
