"""The store: named byte strings that every party can reach, in a folder, on a server or in a cloud, put atomically."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fedpriv.errors import ConfigError, TransportError, UntrustedError
from fedpriv.transport.files import Files, is_temporary
from fedpriv.transport.retrying import with_retries

_HALF = re.compile(r"[a-z][a-z0-9+]*:/*")
"""The beginning of an address in which a slash or two are missing."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,199}")
_KINDS = {
    "": "folder:FolderFiles",
    "file": "folder:FolderFiles",
    "memory": "memory:MemoryFiles",
    "sftp": "sftp:SftpFiles",
    "s3": "objects:ObjectFiles",
    "gs": "objects:ObjectFiles",
    "az": "objects:ObjectFiles",
    "gdrive": "drive:DriveFiles",
    "webdavs": "webdav:WebdavFiles",
    "webdav": "webdav:WebdavFiles",
}
"""Which class opens an address, by what stands before ``://``; imported when an address needs it."""
_WITH_FOLDERS = frozenset({"sftp", "gdrive", "webdav", "webdavs"})
"""Kinds of servers where a folder is there or is not; in clouds it is only how names begin."""
MOST_LISTED = 200_000
"""Things in one folder; of more none is looked at. Honest parties leave some thousands, and delete what was taken."""
_LEFT_SECONDS = 86_400.0
"""After which a file of a temporary name is no longer written."""
_LEFT_DEPTH = 5
_FOLDER_OF_PARTS = re.compile("/parts/[^/]+$")
_LOOKS_S = (0.0, 0.1, 0.4, 1.5, 3.0)
"""Pauses before looks at what was put, where it is not known that it is there at once."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One object below a prefix; when it was written is by the store's clock, in seconds since the epoch, if known."""

    name: str
    size_bytes: int
    modified_s: float | None = None


class Store:
    """Atomic puts and bounded gets of named objects below one root.

    Stateless and safe to share between threads, as the :class:`Files` it stands on are.
    """

    def __init__(self, files: Files, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    @classmethod
    def from_url(cls, url: str) -> Store:
        """Open a store by URL or by the path of a folder, which is made by what is written first.

        Raises
        ------
        ConfigError
            If the URL names no known kind of store, or lacks what its kind needs.
        TransportError
            If the store cannot be reached.
        HostKeyError
            If it shows another host key than the pinned one.
        """
        files, root = _open(url)
        try:
            with_retries(lambda: files.make_folder(root))
        except OSError as error:
            where = url.partition("?")[0]
            raise TransportError(f"The store {where} cannot be reached ({error})", todo="check the path") from error
        return cls(files, root)

    def put(self, key: str, data: bytes) -> None:
        """Write an object so that a reader sees the whole of it or the version before.

        Raises
        ------
        TransportError
            If the store does not take it, or took it and does not show it.
        """
        path = self._path(key)
        try:
            with_retries(lambda: self._files.write(path, data))
            if not self._files.shows_at_once:
                self._see(key, len(data))
        except OSError as error:
            raise TransportError(
                f"The store refused to write {key} ({error})",
                kept="The object that was there before, if any, stands",
                todo="check its space and rights",
            ) from error

    def _see(self, key: str, size_bytes: int) -> None:
        """Look until an object that was put is there with its size."""
        for pause in _LOOKS_S:
            time.sleep(pause)
            found = self.look(key)
            if found is not None and found.size_bytes == size_bytes:
                return
        raise TransportError(
            f"The store took {key}, and does not show it {sum(_LOOKS_S):.0f} s later",
            kept="What is sent lies on this disk",
            todo="run `fedpriv store check` with its address",
        )

    def get(self, key: str, *, max_bytes: int) -> bytes | None:
        """Return an object, or None if there is none.

        Raises
        ------
        TransportError
            If it cannot be read.
        UntrustedError
            If it is larger than ``max_bytes``, or no file: whoever put it there breaks the rules.
        """
        path = self._path(key)
        try:
            data = with_retries(lambda: self._files.read(path, max_bytes + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._is_something_else(path):
                raise UntrustedError(f"{key} on the store is no file", kept="It was not used") from error
            raise TransportError(f"The store refused to read {key} ({error})", todo="check the connection") from error
        if len(data) > max_bytes:
            raise UntrustedError(f"{key} on the store is larger than {max_bytes} bytes", kept="It was not used")
        return data

    def _is_something_else(self, path: str) -> bool:
        """Say whether something lies there that cannot be read because it is no file: a folder, a link, a pipe."""
        try:
            return not with_retries(lambda: self._files.look(path)).is_file
        except (OSError, TransportError):
            return False

    def exists(self, key: str) -> bool:
        """Say whether there is such an object. Raises as :meth:`look`."""
        return self.look(key) is not None

    def look(self, key: str) -> Entry | None:
        """Return what is known of an object without reading it; None if there is none.

        Raises
        ------
        TransportError
            If the store does not say.
        """
        path = self._path(key)
        try:
            found = with_retries(lambda: self._files.look(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransportError(f"The store refused to look for {key} ({error})") from error
        return Entry(name=found.name, size_bytes=found.size_bytes, modified_s=found.modified_s)

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the folders and objects directly below ``prefix``, sorted; odd names are left out."""
        return [entry.name for entry in self._entries(prefix)]

    def entries(self, prefix: str, *, most: int = MOST_LISTED) -> list[Entry]:
        """Return the objects directly below ``prefix``, sorted by name.

        Raises
        ------
        TransportError
            If the store does not say.
        UntrustedError
            If more than ``most`` things lie there.
        """
        return list(self._entries(prefix, files_only=True, most=most))

    def stamp(self, prefix: str) -> int | None:
        """Return what changes when an object is put directly below ``prefix``; None where only listing tells.

        Free to ask, unlike a listing: in a local folder it is the time that the folder was changed last, in ns. Two
        puts within one tick of the system's clock have the same; 0 is that there is no such folder yet.
        """
        try:
            return self._files.stamp(self._path(prefix))
        except OSError as error:
            raise TransportError(f"The store refused to list {prefix} ({error})") from error

    def is_gone(self) -> bool:
        """Say whether the folder that this store lies in is not there; False where a store is no folder."""
        return self._files.stamp(self._root) == 0

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is no error."""
        path = self._path(key)
        try:
            with_retries(lambda: self._files.remove(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransportError(f"The store refused to delete {key} ({error})") from error

    def remove_folder(self, prefix: str) -> None:
        """Forget the folder of names that are all gone: listings of what is above it would show it for ever."""
        path = self._path(prefix)
        try:
            with_retries(lambda: self._files.remove_folder(path))
        except OSError as error:
            raise TransportError(f"The store refused to remove {prefix} ({error})") from error

    def remove_left(self, prefix: str, *, clock: str) -> int:
        """Remove what killed writers left half written below ``prefix``, which is ours; return how many.

        *Guarantee*: nothing but files of temporary names, last written a day and more before the object ``clock`` was,
        by the store's own times; no link is followed. What the store refuses to list or delete stays.

        Raises
        ------
        UnreachableError
            If the store does not answer.
        """
        now = self.look(clock) if self._files.leaves_parts else None
        if now is None or now.modified_s is None:
            return 0
        return self._remove_left(self._path(prefix), now.modified_s - _LEFT_SECONDS, depth=_LEFT_DEPTH)

    def _remove_left(self, path: str, before_s: float, *, depth: int) -> int:
        removed, below = 0, 0
        try:
            found = with_retries(lambda: self._files.list(path, MOST_LISTED))
        except OSError:
            return 0
        for item in found:
            inner = f"{path}/{item.name}"
            if item.is_folder and depth and _PART.fullmatch(item.name):
                below += self._remove_left(inner, before_s, depth=depth - 1)
            elif item.is_file and is_temporary(item.name) and (item.modified_s or before_s) < before_s:
                with contextlib.suppress(OSError):
                    self._files.remove(inner)
                    removed += 1
        if removed and _FOLDER_OF_PARTS.search(path):
            self._files.remove_folder(path)  # if nothing else lies there: until now this one alone kept it listed
        return removed + below

    def _entries(self, prefix: str, *, files_only: bool = False, most: int = MOST_LISTED) -> Iterator[Entry]:
        path = self._path(prefix) if prefix else self._root
        try:
            found = with_retries(lambda: self._files.list(path, most + 1))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransportError(f"The store refused to list {prefix or 'its root'} ({error})") from error
        if len(found) > most:
            raise UntrustedError(
                f"More than {most} things lie in {prefix or 'the root'} of the store",
                kept="None of them was looked at",
                todo="ask who runs the store what they are, and have them removed",
            )
        for item in sorted(found, key=lambda item: item.name):
            if _PART.fullmatch(item.name) and (not files_only or item.is_file):
                yield Entry(name=item.name, size_bytes=item.size_bytes, modified_s=item.modified_s)

    def _path(self, key: str) -> str:
        for part in key.split("/"):
            if not _PART.fullmatch(part) or ".." in part:
                raise TransportError(f"{key!r} is no name for an object", kept="Nothing was written")
        return f"{self._root}/{key}" if self._root else key


def checked_address(given: str) -> str:
    """Return a store's address as a configuration keeps it: a folder with its whole path, whoever reads it and where.

    Nothing is called and nothing is made; that the store answers is not known after it.

    Raises
    ------
    ConfigError
        If its kind is unknown, a part is missing or wrong, or a password is in it.
    """
    _open(given)
    return given if "://" in given else str(Path(given).expanduser().absolute())


def require_whole(address: str) -> None:
    """Check that an address means the same store wherever a process runs.

    Raises
    ------
    ConfigError
        If it is the relative path of a folder, which would count from the current folder.
    """
    if "://" not in address and not Path(address).expanduser().is_absolute():
        raise ConfigError(
            f"The store {address} is a relative path, which is another folder wherever fedpriv is started",
            kept="No store was made or called",
            todo="write the whole path, which begins with /; or an address such as sftp://user@host/folder",
        )


def folder_of(url: str) -> Path | None:
    """Return the folder of this machine that an address names; None for another kind of store."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url).expanduser()


def is_missing(url: str) -> bool:
    """Say whether the folder that an address names is not there, and make none; False where folders are only names.

    Raises
    ------
    ConfigError
        If the address cannot be used.
    TransportError
        If the store does not answer.
    """
    folder = folder_of(url)
    if folder is not None:
        return not folder.is_dir()
    if url.partition("://")[0] not in _WITH_FOLDERS:
        return False
    files, root = _open(url)
    try:
        with_retries(lambda: files.list(root, 1))
    except FileNotFoundError:
        return True
    except OSError:  # it may not be listed, or is no folder: whoever opens it is told so
        return False
    return False


def _open(url: str) -> tuple[Files, str]:
    kind = url.partition("://")[0] if "://" in url else ""
    if kind not in _KINDS:  # of the rest, nothing is shown: a password may be in it
        raise ConfigError(
            f"The store cannot be opened: the kind {kind} is unknown, or may show half-written files",
            todo="give a folder, or an address that begins with sftp://, s3://, gs://, az://, gdrive:// or webdavs://",
        )
    if not kind and (half := _HALF.match(url)):
        raise ConfigError(
            f"The store's address begins with {half[0]}, which is neither a folder nor a kind of store",
            todo=f"write {half[0].rstrip(':/')}:// and what follows; or ./ in front of it, if it is a folder",
        )
    if kind == "file" and not url.startswith("file:///"):
        raise ConfigError("The store's address has file:// and no whole path", todo="write it as file:///folder")
    module, _, name = _KINDS[kind].partition(":")
    return getattr(import_module(f"fedpriv.transport.{module}"), name).open(url)
