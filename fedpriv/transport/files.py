"""What a kind of store must be able to do, and what all kinds use."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Protocol

from fedpriv.errors import UnreachableError

_TEMPORARY = ".part-"
_TEMPORARY_NAME = re.compile(r"\.part-[0-9a-f]{32}-[A-Za-z0-9@._+-]{1,100}")


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
    is_folder : bool
        Whether it is a folder and no link to one; only where :attr:`Files.leaves_parts` is true.
    modified_s : float or None
        When it was written last, by the store's clock, in seconds since the epoch; None where it does not say.
    """

    name: str
    size_bytes: int
    is_file: bool
    is_folder: bool = False
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

    @property
    def leaves_parts(self) -> bool:
        """Whether a writer that is killed leaves a file of a temporary name, which :meth:`list` shows."""
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


def is_temporary(name: str) -> bool:
    """Say whether a name is one that :func:`temporary_name` gives."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def unreachable(where: str, reason: str) -> UnreachableError:
    """Return what a kind of store raises where it gets no answer."""
    return UnreachableError(
        f"The store {where} cannot be reached ({reason})", kept="Everything local is kept", todo="check the network"
    )
