"""Copies of the blobs that a party sent, kept until the recipient took them: a store may lose what lies on it."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from fedpriv.files import PRIVATE_FILE, private_folder, write_atomic

_REMOVING = ".removing-"


class Spool:
    """A folder of a party's own. A file that is sent is linked, not copied, where the disk allows it.

    Parameters
    ----------
    folder : Path
        Made if it is missing, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    def path(self, recipient: str, name: str) -> Path:
        """Return where the copy of a blob lies, if there is one."""
        return self._folder / recipient / name

    def keep(self, recipient: str, name: str, data: bytes | Path) -> None:
        """Keep a blob; an older one of that name is replaced, and is not to be removed any more."""
        path = self.path(recipient, name)
        private_folder(path.parent)
        if data != path:
            self.removed(recipient, name)
        if isinstance(data, bytes):
            write_atomic(path, data)
            return
        if data == path:
            return
        link = path.with_name(f".{uuid.uuid4().hex}")
        try:
            try:
                os.link(data, link)
            except OSError:  # on another disk, or one that has no links
                _copy(data, link)
            link.replace(path)
        finally:  # rename does nothing where both are links of one file; half a copy takes space on a full disk
            link.unlink(missing_ok=True)

    def forget(self, recipient: str, name: str) -> None:
        """Remove a copy, and note first that the blob is to be removed from the store: until :meth:`removed`."""
        path = self.path(recipient, name)
        private_folder(path.parent)
        write_atomic(path.with_name(_REMOVING + name), b"")
        path.unlink(missing_ok=True)

    def removed(self, recipient: str, name: str) -> None:
        """Note that nothing of a blob is left on the store."""
        self.path(recipient, _REMOVING + name).unlink(missing_ok=True)

    def removing(self, recipient: str) -> list[str]:
        """Return the names of what is still to be removed from the store."""
        folder = self._folder / recipient
        return sorted(path.name.removeprefix(_REMOVING) for path in folder.glob(f"{_REMOVING}*"))

    def names(self, recipient: str) -> list[str]:
        """Return the names of what is kept for ``recipient``."""
        folder = self._folder / recipient
        return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def _copy(source: Path, target: Path) -> None:
    """Copy a file, private and flushed to the disk, without holding it in memory."""
    with source.open("rb") as read, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE), "wb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())
