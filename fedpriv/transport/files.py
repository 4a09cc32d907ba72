"""What a kind of store must be able to do, and the kinds that need no server: a folder, and this process's memory."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import fsspec
from fsspec.spec import AbstractFileSystem

from fedpriv.errors import ConfigError, TransportError, UnreachableError
from fedpriv.files import open_plain
from fedpriv.transport.retrying import is_transient

_TEMPORARY = ".part-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""To go through a folder, which who may not list it may do, too."""
_SEEN: set[str] = set()
"""Roots of stores that were there while this process ran."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a folder of a store.

    Attributes
    ----------
    name : str
        Its name in the folder.
    size_bytes : int
        Its size; 0 for a folder.
    is_file : bool
        Whether it can be read.
    modified_s : float or None
        When it was written last, by the store's clock, in seconds since the epoch; None where it does not say.
    """

    name: str
    size_bytes: int
    is_file: bool
    modified_s: float | None = None


class Files(Protocol):
    """One kind of store: whole files by absolute path. Stateless for its callers, and safe to share between threads.

    What the store says no to is an ``OSError``; one that does not answer is an ``UnreachableError`` with its own words.
    """

    @property
    def shows_at_once(self) -> bool:
        """Whether it is known that a written file is there for every reader once the write was answered.

        Where it is not known, whoever writes looks: that costs a round trip, and finds a cache in between.
        """
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace a file so that a reader sees the old or the new one, whole; missing folders are made.

        Where the kind of store says so, the name may stand for nothing for a moment; never for half a file.
        """
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return at most ``limit`` bytes of a file; ``FileNotFoundError`` if there is none there."""
        ...

    def list(self, path: str, limit: int) -> list[Item]:
        """Return what lies in a folder, ``limit`` things at the most; ``FileNotFoundError`` if there is none."""
        ...

    def look(self, path: str) -> Item:
        """Return what is known of a file without reading it; ``FileNotFoundError`` if there is none."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; ``FileNotFoundError`` if there is none, where the store says so."""
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents, where writing does not; one that is there is no error."""
        ...

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is there and empty; nothing, where folders are only names."""
        ...

    def stamp(self, path: str) -> int | None:
        """Return what changes when a folder does, if asking costs nothing; else None. 0 is that there is no folder."""
        ...


def temporary_name(path: str) -> str:
    """Return a name beside ``path`` that no other writer uses, and that no listing of a store shows."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{_TEMPORARY}{uuid.uuid4().hex}-{name[:100]}"


def unreachable(where: str, reason: str) -> UnreachableError:
    """Return what a kind of store raises where it gets no answer."""
    return UnreachableError(
        f"The store {where} cannot be reached ({reason})", kept="Everything local is kept", todo="check the network"
    )


class FsspecFiles:
    """A folder of this machine, or one in its memory, through fsspec.

    *Guarantee*: below the root no link is followed. Whoever else writes to a shared folder could put one in the place
    of a folder of ours, and have us write over our own keys.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, *, is_local: bool) -> None:
        self._filesystem, self._root = filesystem, root
        self._is_local = is_local
        self.shows_at_once = True  # to us: of another machine's view of a network folder, asking here says nothing

    @classmethod
    def open(cls, url: str) -> tuple[FsspecFiles, str]:
        """Return the store that a path, a ``file://`` or a ``memory://`` address names, and the root in it.

        Raises
        ------
        ConfigError
            If the address is none.
        """
        try:
            filesystem, root = fsspec.core.url_to_fs(url if "://" in url else str(Path(url).expanduser().resolve()))
        except (ValueError, ImportError) as error:
            raise ConfigError(f"The store {url} cannot be opened ({error})", todo="give a folder or a URL") from error
        return cls(filesystem, root, is_local=not url.startswith("memory:")), root

    def write(self, path: str, data: bytes) -> None:
        self._require_root()
        with _only_os_errors():
            if not self._is_local:
                self._filesystem.pipe_file(path, data)
                return
            name, temporary = Path(path).name, Path(temporary_name(path)).name
            with self._opened(_folder_of(path), is_made=True) as folder:
                try:
                    opened = os.open(
                        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder
                    )
                    with os.fdopen(opened, "wb") as stream:
                        stream.write(data)
                    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)  # on a full disk, what was written of it takes space
                    raise

    def read(self, path: str, limit: int) -> bytes:
        self._require_root()
        if self._is_local:  # whoever else writes there may have put a pipe in the place, on which we would wait
            with (
                _only_os_errors(),
                self._opened(_folder_of(path)) as folder,
                os.fdopen(open_plain(Path(path).name, folder=folder), "rb") as plain,
            ):
                return plain.read(limit)
        with _only_os_errors(), self._filesystem.open(path, "rb") as stream:
            data = stream.read(limit)
        return data if isinstance(data, bytes) else data.encode()

    def list(self, path: str, limit: int) -> list[Item]:
        self._require_root()
        if self._is_local:  # not by fsspec, which reads a folder to its end, whatever somebody put there
            with _only_os_errors(), self._opened(path) as folder:
                readable = os.open(".", _FOLDER, dir_fd=folder)
                try:
                    with os.scandir(readable) as entries:
                        return [item for entry in islice(entries, limit) if (item := _local_item(entry)) is not None]
                finally:
                    os.close(readable)
        with _only_os_errors():
            found = self._filesystem.ls(path, detail=True, refresh=True)
        return [_item(item) for item in found[:limit]]

    def look(self, path: str) -> Item:
        if self._is_local and Path(path).is_symlink():
            return Item(name=Path(path).name, size_bytes=0, is_file=False)
        with _only_os_errors():
            return _item(self._filesystem.info(path))

    def remove(self, path: str) -> None:
        with _only_os_errors():
            if not self._is_local:
                self._filesystem.rm_file(path)
                return
            with self._opened(_folder_of(path)) as folder:
                os.unlink(Path(path).name, dir_fd=folder)

    def make_folder(self, path: str) -> None:
        pass  # what is written first makes it: who only looks must not make a store where a share is not mounted

    def remove_folder(self, path: str) -> None:
        if self._is_local:
            with contextlib.suppress(OSError), self._opened(_folder_of(path)) as folder:  # it is not empty, or gone
                os.rmdir(Path(path).name, dir_fd=folder)

    def stamp(self, path: str) -> int | None:
        if not self._is_local:
            return None
        self._require_root()
        try:
            return Path(path).stat().st_mtime_ns
        except OSError as error:  # whoever writes there may have put a file or a link in a folder's place
            if is_transient(error):
                raise
            return 0

    @contextlib.contextmanager
    def _opened(self, path: str, *, is_made: bool = False) -> Iterator[int]:
        """Open a folder of this machine, step by step from the root on, and make what is missing of it.

        Raises
        ------
        OSError
            If a part of it is missing, or no folder: a link is none.
        """
        if is_made:
            Path(self._root).mkdir(parents=True, exist_ok=True)
        folder = os.open(f"{self._root}/.", _STEP)  # "/.": what is mounted when it is used, is mounted
        try:
            for name in filter(None, path.removeprefix(self._root).split("/")):
                try:
                    try:
                        inner = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=folder)
                    except (
                        FileNotFoundError
                    ):  # not made first: NFS may refuse that where only the folders below are ours
                        if not is_made:
                            raise
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(name, dir_fd=folder)
                        inner = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=folder)
                except OSError as error:
                    if error.errno not in (
                        errno.ENOTDIR,
                        errno.ELOOP,
                    ):  # a link is the one on Linux, the other on macOS
                        raise
                    raise NotADirectoryError(errno.ENOTDIR, "a link, or no folder", name) from error
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _require_root(self) -> None:
        """Raise if the store's folder was there before in this process, and is gone: a new one would be another store.

        Raises
        ------
        UnreachableError
            Naming the folder.
        """
        if not self._is_local:
            return
        if Path(self._root).is_dir():
            _SEEN.add(self._root)
        elif self._root in _SEEN:
            raise unreachable(self._root, "the folder is gone: is the share mounted?")


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _local_item(entry: os.DirEntry[str]) -> Item | None:
    """Return what lies in a folder of this machine; None if it went away since it was listed."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    is_file = entry.is_file(follow_symlinks=False)
    size_bytes = found.st_size if is_file else 0
    return Item(name=entry.name, size_bytes=size_bytes, is_file=is_file, modified_s=found.st_mtime)


def _item(found: dict[str, Any]) -> Item:
    return Item(
        name=found["name"].rstrip("/").rpartition("/")[2],
        size_bytes=int(found.get("size") or 0),
        is_file=found["type"] == "file",
        modified_s=found.get("mtime"),
    )


@contextlib.contextmanager
def _only_os_errors() -> Iterator[None]:
    """Let nothing of a store's own library out: every one has exceptions of its own for a network that fails."""
    try:
        yield
    except NotADirectoryError as error:  # where a folder should be, somebody put a file: below it there is nothing
        raise FileNotFoundError(str(error)) from error
    except (OSError, TransportError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
