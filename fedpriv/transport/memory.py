"""Stores in this process's memory, through fsspec: for trying something out, and gone with the process."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from fedpriv.errors import ConfigError
from fedpriv.transport.files import Item


class MemoryFiles:
    """Files of this process alone."""

    shows_at_once = True
    leaves_parts = False

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        self._filesystem = filesystem

    @classmethod
    def open(cls, url: str) -> tuple[MemoryFiles, str]:
        """Return the store that a ``memory://`` address names, and the root in it.

        Raises
        ------
        ConfigError
            If the address is none.
        """
        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"The store {url} cannot be opened ({error})", todo="give a folder or a URL") from error
        return cls(filesystem), root

    def write(self, path: str, data: bytes) -> None:
        self._filesystem.pipe_file(path, data)

    def read(self, path: str, limit: int) -> bytes:
        with self._filesystem.open(path, "rb") as stream:
            data = stream.read(limit)
        return data if isinstance(data, bytes) else data.encode()

    def list(self, path: str, limit: int) -> list[Item]:
        return [_item(item) for item in self._filesystem.ls(path, detail=True, refresh=True)[:limit]]

    def look(self, path: str) -> Item:
        return _item(self._filesystem.info(path))

    def remove(self, path: str) -> None:
        self._filesystem.rm_file(path)

    def make_folder(self, path: str) -> None:
        pass

    def remove_folder(self, path: str) -> None:
        pass

    def stamp(self, path: str) -> int | None:
        return None


def _item(found: dict[str, Any]) -> Item:
    return Item(
        name=found["name"].rstrip("/").rpartition("/")[2],
        size_bytes=int(found.get("size") or 0),
        is_file=found["type"] == "file",
        modified_s=found.get("mtime"),
    )
