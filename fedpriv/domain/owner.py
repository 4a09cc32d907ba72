"""Whose a domain's folder is: one command as another user would leave files in it that its service cannot read."""

from __future__ import annotations

import os
import pwd
import shlex
import tempfile
from pathlib import Path

from fedpriv.errors import ConfigError


def require_owner(root: Path, *, state: Path) -> None:
    """Check that this process runs as the user whose domain ``root`` is; one that is not there is everybody's.

    What counts is who owns ``state``, which fedpriv makes itself: the folder around it may be an engine's volume.

    Raises
    ------
    ConfigError
        If the domain is another user's, also for a command that only reads: it might write a lock or a status.
    """
    place = _nearest(state, root)
    if place is not None:
        _require_same(place, f"The domain {root}", root)


def require_place(root: Path) -> None:
    """Check that a domain may be made at ``root`` by this user: root makes none in a folder that another user owns.

    Raises
    ------
    ConfigError
        If it would belong to root, where the service's user looks for it.
    """
    if os.geteuid() == 0:
        place = next(folder for folder in (root, *root.parents) if folder.exists())
        _require_same(place, f"The folder {place}", place)


def user_in_words(uid: int) -> str:
    """Return a user's name, or its number where the machine has no name for it, as in a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"  # what sudo -u takes


def _nearest(state: Path, root: Path) -> Path | None:
    """Return what says whose a domain is; a folder above it, where that lets nobody look; None if nothing is there."""
    hidden = False
    for place in (state, root, *root.parents):
        try:
            place.stat()
        except PermissionError:
            hidden = True
        except OSError:
            continue
        else:
            return place if hidden or place in (state, root) else None
    return None


def _writes_as(place: Path) -> int | None:
    """Return whose a file is that this process makes there: a file server may give all of them to one user."""
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            return os.fstat(probe.fileno()).st_uid
    except OSError:
        return None


def _require_same(place: Path, what: str, root: Path) -> None:
    owner, here = place.stat().st_uid, os.geteuid()
    if owner in (here, _writes_as(place)):
        return
    named, me = user_in_words(owner), user_in_words(here)
    todo = f"run it as that user: sudo -u {shlex.quote(named)} fedpriv, in the place of fedpriv"
    if owner == 0:
        todo = f"if root made it by mistake, give it to its user (sudo chown -R '{me}' {root}), or run it as root"
    raise ConfigError(
        f"{what} belongs to the user {named}, and this command runs as {me}", kept="Nothing was changed", todo=todo
    )
