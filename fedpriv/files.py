"""Files that survive a kill: written to a temporary name, flushed, renamed; private unless said otherwise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedpriv.errors import LockError, UntrustedError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
MAX_JSON_BYTES = 16 * 2**20
"""No JSON message of ours comes near this size; a larger one is refused before it is parsed."""


def canonical_json(value: Any) -> bytes:
    """Return the one JSON encoding of ``value`` that is hashed and signed: sorted keys, no spaces, UTF-8.

    Raises
    ------
    ValueError
        If ``value`` holds NaN or an infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_plain(path: Path | str, *, folder: int | None = None) -> int:
    """Open a regular file for reading, without following a link or waiting on a pipe; return its descriptor.

    Parameters
    ----------
    folder : int, optional
        Descriptor of the folder that a relative ``path`` begins at.

    Raises
    ------
    OSError
        If it is missing, a link, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def private_folder(path: Path) -> Path:
    """Create ``path`` (and its missing parents) readable by their owner only, and return it."""
    if path.is_dir():
        return path
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):  # mkdir(parents=True) would create the parents readable by all
        folder.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
    path.mkdir(exist_ok=True)  # an error if it is a file
    return path


def write_atomic(path: Path, data: bytes, *, mode: int = PRIVATE_FILE, durable: bool = True) -> None:
    """Replace ``path`` by ``data`` so that a reader, or a restart after a kill, sees the old or the new bytes only.

    Without ``durable`` nothing waits for the disk: a power cut may lose the file. For what is written anew anyway.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def write_folder(target: Path, files: Mapping[str, bytes], *, staging: Path, durable: bool = True) -> None:
    """Make the folder ``target`` with ``files`` by their relative names: after a kill it is there whole or not at all.

    Parameters
    ----------
    staging : Path
        A folder beside it, of the same filesystem, which a restart may empty.
    durable : bool
        Without it nothing waits for the disk, and a power cut may lose what is in the files.
    """
    folder = private_folder(staging) / uuid.uuid4().hex
    folders = {folder}
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
            folders |= {parent for parent in path.parents if folder in parent.parents}
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        for written in folders if durable else ():
            sync_folder(written)
        folder.rename(target)
    except OSError:  # a full disk is not to be filled further by each attempt
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if durable:
        sync_folder(target.parent)


def open_temporary(path: Path) -> tuple[Path, int]:
    """Create the private file that will be renamed to ``path``; return it, and its descriptor for reading and writing.

    What a killed process left for the same ``path`` is removed: only one process writes to it at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if left.name.removeprefix(f".{path.name}.").removesuffix(".tmp").isdigit():  # a process id
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset`` (bytes): the system may write less at a time, as on a disk that fills up."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, mode: int = PRIVATE_FILE, durable: bool = True) -> None:
    """Write ``value`` as indented JSON; see :func:`write_atomic`."""
    data = json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    write_atomic(path, data, mode=mode, durable=durable)


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of at most ``max_bytes``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UntrustedError
        If it is too large or not JSON.
    """
    with path.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    return parse_json(data, source=str(path), max_bytes=max_bytes)


def parse_json(data: bytes, *, source: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse JSON of at most ``max_bytes``; NaN, infinities and halves of surrogate pairs are refused.

    Raises
    ------
    UntrustedError
        If ``data`` is too large or not strict JSON.
    """
    if len(data) > max_bytes:
        raise UntrustedError(f"{source} is larger than {max_bytes} bytes", kept="It was not read")

    def refuse(token: str) -> float:
        raise ValueError(f"{token} is not a JSON number")

    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=refuse)  # of bytes it would guess the encoding
        if "\\ud" in text.lower():  # half of a surrogate pair is in no text: it could be neither signed nor shown
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise UntrustedError(f"{source} is not JSON ({error})", kept="It was not used") from error


@contextlib.contextmanager
def folder_lock(path: Path, *, holder: str, todo: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; the kernel releases it when the process dies.

    Parameters
    ----------
    path : Path
        The lock file; it holds the process id for people to read and is removed at the end.
    holder : str
        What holds it, for the message, such as ``"the study"``.
    todo : str
        The next step to name when another process holds it.

    Raises
    ------
    LockError
        If a living process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = take_lock(path)
    if descriptor is None:
        pid = "unknown"
        with contextlib.suppress(OSError):  # it may just have been put away
            pid = path.read_text(encoding="utf-8", errors="replace").strip()[:32] or "unknown"
        raise LockError(f"{holder} is in use by process {pid}", kept="Nothing was changed", todo=todo)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock file until it is closed, or None if a living process has it.

    The file is made where there is none; the kernel releases it when the process dies.

    Raises
    ------
    OSError
        If its folder is gone or may not be written.
    """
    blocked = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            blocked += 1
            if blocked == 5:
                return None
            time.sleep(0.02)  # it may only be stale_lock_pid that looks at it
            continue
        os.close(descriptor)  # its last holder removed it between our opening and locking it


def stale_lock_pid(path: Path) -> int | None:
    """Return the process id in the lock file ``path`` if no living process holds it, else None."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not take each other for it
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)
