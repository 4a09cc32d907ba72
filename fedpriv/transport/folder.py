"""Stores in a folder: of this machine, or one that several reach, such as a share over NFS."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fedpriv.errors import TransportError
from fedpriv.files import open_plain
from fedpriv.transport.files import Item, temporary_name, unreachable
from fedpriv.transport.retrying import is_transient

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""To go through a folder, which who may not list it may do, too."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SEEN: set[str] = set()
"""Roots of stores that were there while this process ran."""


class FolderFiles:
    """The files below a folder.

    *Guarantee*: below the root no link is followed. Whoever else writes to a shared folder could put one in the place
    of a folder of ours, and have us write over our own keys, or look whether they are there.
    *Assumption*: the root itself, and the folders above it, are the operator's.
    """

    shows_at_once = True
    """To us: of another machine's view of a network folder, asking here says nothing."""
    leaves_parts = True

    def __init__(self, root: str) -> None:
        self._root = root

    @classmethod
    def open(cls, url: str) -> tuple[FolderFiles, str]:
        """Return the store that a path or a ``file://`` address names, and the root in it."""
        root = str(Path(url.removeprefix("file://")).expanduser().resolve())
        return cls(root), root

    def write(self, path: str, data: bytes) -> None:
        self._require_root()
        folder_path, name = _split(path)
        temporary = _split(temporary_name(path))[1]
        with self._opened(folder_path, is_made=True) as folder:
            try:
                with os.fdopen(os.open(temporary, _NEW, 0o666, dir_fd=folder), "wb") as stream:
                    stream.write(data)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)  # on a full disk, what was written of it takes space
                raise

    def read(self, path: str, limit: int) -> bytes:
        self._require_root()
        folder_path, name = _split(path)
        # Plain: whoever else writes there may have put a pipe in the place, on which we would wait.
        with self._opened(folder_path) as folder, os.fdopen(open_plain(name, folder=folder), "rb") as plain:
            return plain.read(limit)

    def list(self, path: str, limit: int) -> list[Item]:
        self._require_root()
        with self._opened(path) as folder:
            readable = os.open(".", _FOLDER, dir_fd=folder)
            try:
                with os.scandir(readable) as entries:
                    return [item for entry in islice(entries, limit) if (item := _listed(entry)) is not None]
            finally:
                os.close(readable)

    def look(self, path: str) -> Item:
        folder_path, name = _split(path)
        with self._opened(folder_path) as folder:
            return _item(name, os.stat(name, dir_fd=folder, follow_symlinks=False))

    def remove(self, path: str) -> None:
        folder_path, name = _split(path)
        with self._opened(folder_path) as folder:
            os.unlink(name, dir_fd=folder)

    def make_folder(self, path: str) -> None:
        pass  # what is written first makes it: who only looks must not make a store where a share is not mounted

    def remove_folder(self, path: str) -> None:
        folder_path, name = _split(path)
        with contextlib.suppress(OSError), self._opened(folder_path) as folder:  # it is not empty, or gone
            os.rmdir(name, dir_fd=folder)

    def stamp(self, path: str) -> int | None:
        self._require_root()
        try:
            with self._opened(path) as folder:
                return os.fstat(folder).st_mtime_ns
        except OSError as error:  # whoever writes there may have put a file or a link in a folder's place
            if is_transient(error):
                raise
            return 0

    @contextlib.contextmanager
    def _opened(self, path: str, *, is_made: bool = False) -> Iterator[int]:
        """Open a folder, step by step from the root on, and make what is missing of it.

        Raises
        ------
        FileNotFoundError
            If a part of it is missing, or no folder: a link is none.
        TransportError
            If it is to be made, and the folder that the store's own would lie in is not there.
        """
        if is_made:
            self._make_root()
        folder = os.open(f"{self._root}/.", _STEP)  # "/.": what is mounted when it is used, is mounted
        try:
            for name in filter(None, path.removeprefix(self._root).split("/")):
                inner = _step(name, folder, is_made=is_made)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _make_root(self) -> None:
        """Make the store's own folder where it is missing, but none above it: that would be a typing error's."""
        root = Path(self._root)
        try:
            root.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise TransportError(
                f"The store's folder {root} cannot be made: there is no folder {root.parent}",
                kept="Nothing was made or sent",
                todo="correct the store's path, mount the share, or make that folder",
            ) from error

    def _require_root(self) -> None:
        """Raise if the store's folder was there before in this process, and is gone: a new one would be another store.

        Raises
        ------
        UnreachableError
            Naming the folder.
        """
        if Path(self._root).is_dir():
            _SEEN.add(self._root)
        elif self._root in _SEEN:
            raise unreachable(self._root, "the folder is gone: is the share mounted?")


def _step(name: str, folder: int, *, is_made: bool) -> int:
    """Open a folder in another one."""
    try:
        try:
            return os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if not is_made:
                raise
        with contextlib.suppress(FileExistsError):  # made only now: over NFS who may not make one is refused first
            os.mkdir(name, dir_fd=folder)
        return os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):  # of a link, the one on Linux, the other on macOS
            raise
        raise FileNotFoundError(errno.ENOENT, "a link, or no folder", name) from error


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _listed(entry: os.DirEntry[str]) -> Item | None:
    """Return what lies in a folder; None if it went away since it was listed."""
    try:
        return _item(entry.name, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None


def _item(name: str, found: os.stat_result) -> Item:
    is_file = stat.S_ISREG(found.st_mode)
    size = found.st_size if is_file else 0
    is_folder = stat.S_ISDIR(found.st_mode)
    return Item(name=name, size_bytes=size, is_file=is_file, is_folder=is_folder, modified_s=found.st_mtime)
