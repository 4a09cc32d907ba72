"""The store: named byte strings that every party can reach, on any fsspec filesystem, put atomically."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.spec import AbstractFileSystem

from fedpriv.errors import ConfigError, TransportError

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,199}")
_TEMPORARY = ".part-"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One object below a prefix."""

    name: str
    size_bytes: int


class Store:
    """Atomic puts and bounded gets of named objects below one root.

    Stateless and safe to share between threads, as fsspec's filesystems are.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._puts_are_atomic = not isinstance(filesystem.protocol, tuple) or "file" not in filesystem.protocol

    @classmethod
    def from_url(cls, url: str) -> Store:
        """Open a store by URL or by the path of a folder; a local folder is created when it is missing.

        Raises
        ------
        ConfigError
            If the URL names no known kind of store.
        TransportError
            If the store cannot be reached.
        """
        try:
            filesystem, root = fsspec.core.url_to_fs(url if "://" in url else str(Path(url).expanduser().resolve()))
        except (ValueError, ImportError) as error:
            raise ConfigError(f"The store {url} cannot be opened ({error})", todo="give a folder or a URL") from error
        try:
            filesystem.makedirs(root, exist_ok=True)
        except OSError as error:
            raise TransportError(f"The store {url} cannot be reached ({error})", todo="check the path") from error
        return cls(filesystem, root)

    def put(self, key: str, data: bytes) -> None:
        """Write an object so that a reader sees the whole of it or the version before."""
        path = self._path(key)
        try:
            if self._puts_are_atomic:
                self._filesystem.pipe_file(path, data)
                return
            folder, _, name = path.rpartition("/")
            self._filesystem.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/{_TEMPORARY}{uuid.uuid4().hex}-{name}"
            self._filesystem.pipe_file(temporary, data)
            Path(temporary).replace(path)
        except OSError as error:
            raise TransportError(
                f"The store refused to write {key} ({error})", todo="check space and rights"
            ) from error

    def get(self, key: str, *, max_bytes: int) -> bytes | None:
        """Return an object, or None if there is none.

        Raises
        ------
        TransportError
            If it is larger than ``max_bytes`` or cannot be read.
        """
        path = self._path(key)
        try:
            with self._filesystem.open(path, "rb") as stream:
                data = stream.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransportError(f"The store refused to read {key} ({error})", todo="check the connection") from error
        if not isinstance(data, bytes) or len(data) > max_bytes:
            raise TransportError(f"{key} on the store is larger than {max_bytes} bytes", kept="It was not used")
        return data

    def exists(self, key: str) -> bool:
        return bool(self._filesystem.exists(self._path(key)))

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the folders and objects directly below ``prefix``, sorted; odd names are left out."""
        return [entry.name for entry in self._entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects directly below ``prefix``, sorted by name."""
        return list(self._entries(prefix, files_only=True))

    def stamp(self, prefix: str) -> int | None:
        """Return what changes when an object is put directly below ``prefix``; None where only listing tells.

        Free to ask, unlike a listing: in a local folder it is the time that the folder was changed last, in ns. Two
        puts within one tick of the system's clock have the same; 0 is that there is no such folder yet.
        """
        if self._puts_are_atomic:  # no local folder
            return None
        try:
            return Path(self._path(prefix)).stat().st_mtime_ns
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise TransportError(f"The store refused to list {prefix} ({error})") from error

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is no error."""
        try:
            self._filesystem.rm_file(self._path(key))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransportError(f"The store refused to delete {key} ({error})") from error

    def _entries(self, prefix: str, *, files_only: bool = False) -> Iterator[Entry]:
        path = self._path(prefix) if prefix else self._root
        try:
            found = self._filesystem.ls(path, detail=True, refresh=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransportError(f"The store refused to list {prefix or 'its root'} ({error})") from error
        for item in sorted(found, key=lambda item: item["name"]):
            name = item["name"].rstrip("/").rpartition("/")[2]
            if _PART.fullmatch(name) and (not files_only or item["type"] == "file"):
                yield Entry(name=name, size_bytes=int(item.get("size") or 0))

    def _path(self, key: str) -> str:
        for part in key.split("/"):
            if not _PART.fullmatch(part) or ".." in part:
                raise TransportError(f"{key!r} is no name for an object", kept="Nothing was written")
        return f"{self._root}/{key}"
