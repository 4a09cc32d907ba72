"""Landlock: a Linux process gives up rights for good, for itself and all that it starts (kernel's landlock(7)).

It needs no privilege and no program. The forked child of a training worker uses it to fence itself off from the other
jobs of the same sandbox; where bubblewrap is missing, it is the only wall.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGES = sum(1 << bit for bit in range(4, 13))  # remove and make files, folders, links, sockets, devices
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract Unix sockets, signals to processes outside

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_A_FILE = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
"""Rights that a rule about a plain file may give."""


class _RulesetAttribute(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_version() -> int:
    """Return the version of Landlock that this kernel has, or 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, _VERSION_FLAG))


def restrict(readable: Iterable[Path], writable: Iterable[Path], *, tcp: bool = False) -> bool:
    """Allow this process and its future children these places only, no TCP, and signals among themselves only.

    *Guarantee*: cannot be undone by any of them. *Assumption*: the kernel's Landlock is sound; files that are open
    already stay open; UDP is not covered (the sandbox's network namespace is what has no network at all).

    Parameters
    ----------
    readable, writable : iterable of Path
        Folders, with all that is in them, or files. What does not exist is left out.
    tcp : bool, default False
        Allow TCP nevertheless, because something else forbids it, or soon will.

    Returns
    -------
    bool
        False where the kernel has no Landlock; then nothing was restricted.

    Raises
    ------
    OSError
        If the kernel has Landlock and refuses; the process must not go on then.
    """
    version = landlock_version()
    if version == 0:
        return False
    later = (
        (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_IOCTL_DEVICE if version >= 5 else 0)
    )
    handled = _READ | _WRITE_FILE | _CHANGES | later
    attribute = _RulesetAttribute(handled, _TCP if version >= 4 and not tcp else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8  # the fields that this version knows
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = _checked(libc.syscall(_CREATE, ctypes.byref(attribute), size, 0))
    try:
        for path in readable:
            _allow(libc, ruleset, path, _READ & handled)
        for path in writable:
            _allow(libc, ruleset, path, handled)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights if path.is_dir() else rights & _ON_A_FILE
            rule = _PathBeneath(allowed, descriptor)
            _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
        finally:
            os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
