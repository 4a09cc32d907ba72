"""Temporary folders with patients' rows: removed at the end, and those of processes that were killed by the next."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedpriv.files import take_lock

_LOCK = ".in-use"


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Give a private folder (0700) below the temporary folder while the block runs.

    A killed process cannot remove its own. So each is locked by its process, the kernel ends that lock with it, and
    whoever makes the next folder of the same purpose removes those of this user that nobody holds.

    Parameters
    ----------
    purpose : str
        A word for its name.
    """
    prefix = f"fedpriv-{purpose}-"
    _remove_abandoned(prefix)
    folder, lock = _locked(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError):  # taken for abandoned before it was locked
            lock = take_lock(folder / _LOCK)
            if lock is not None:
                return folder, lock


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another process removes it, too
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid() or not (folder / _LOCK).exists():
                continue
            lock = take_lock(folder / _LOCK)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
