"""What training code tried that training never needs: noticed in the child, told in fixed words, for the ledger.

The sandbox refuses these things; this module only notices them. It runs beside untrusted code, which could keep it from
noticing or make it notice what never was: what is told is a hint for the data owner, and never holds a word of the
child's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

Attempt = Literal["network", "processes", "reading elsewhere", "writing elsewhere", "signals", "native code"]
ATTEMPTS: frozenset[str] = frozenset(get_args(Attempt))

_CALLS: dict[str, Attempt] = {
    **dict.fromkeys(
        (
            "socket.__new__",
            "socket.connect",
            "socket.bind",
            "socket.sendto",
            "socket.sendmsg",
            "socket.getaddrinfo",
            "urllib.Request",
        ),
        "network",
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
        "processes",
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pthread_kill"), "signals"),
    "ctypes.dlopen": "native code",
}
_PATH_READS = frozenset({"os.listdir", "os.scandir", "os.walk"})
_PATH_WRITES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def notice(tell: Callable[[Attempt], None], readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Tell each kind of attempt once, from now to the end of this process.

    Parameters
    ----------
    tell : Callable[[Attempt], None]
        Called at the first attempt of a kind.
    readable, writable : iterable of Path
        Where reading, and where writing, is part of training.
    """
    reads, writes = _prefixes((*readable, *writable)), _prefixes(writable)
    told: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        attempt = _CALLS.get(event)
        if attempt is None:
            if event == "open":
                attempt = _of_open(arguments, reads, writes)
            elif event in _PATH_READS:
                attempt = None if _is_below(arguments[0], reads) else "reading elsewhere"
            elif event in _PATH_WRITES:
                attempt = None if _is_below(arguments[0], writes) else "writing elsewhere"
        if attempt is not None and attempt not in told:
            told.add(attempt)
            tell(attempt)

    sys.addaudithook(hook)


def _of_open(arguments: tuple[Any, ...], reads: tuple[str, ...], writes: tuple[str, ...]) -> Attempt | None:
    path, _, flags = arguments
    if isinstance(flags, int) and flags & _WRITING:
        return None if _is_below(path, writes) else "writing elsewhere"
    return None if _is_below(path, reads) else "reading elsewhere"


def _is_below(path: object, prefixes: tuple[str, ...]) -> bool:
    if path is None or isinstance(path, int):
        return True  # the current folder, or a file that is open already
    try:
        real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    except (TypeError, ValueError, OSError):
        return False
    return any(real == prefix or real.startswith(prefix + os.sep) for prefix in prefixes)


def _prefixes(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple({os.path.realpath(path).rstrip(os.sep) for path in paths})
