"""The walls around training: a clean environment, and bubblewrap without network where it is there."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedpriv.errors import ConfigError

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/sys/devices/system/cpu",
)
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@functools.cache
def bubblewrap() -> str | None:
    """Return the path of a bubblewrap that really works here, or None."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "--ro-bind", "/", "/", "--unshare-net", "--unshare-pid", "true"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def clean_environment(threads: int, scratch: Path) -> dict[str, str]:
    """Return the environment of a training worker: nothing of the domain's own but where programs are."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }


def wrap(
    command: Sequence[str],
    *,
    mode: Literal["required", "preferred", "off"],
    readable: Sequence[Path],
    writable: Path,
) -> tuple[list[str], str]:
    """Return the command inside its sandbox, and the sandbox's name for the ledger.

    Parameters
    ----------
    readable, writable : Path
        What the child may read, and the one folder that it may write. Beside them it sees the system's programs and
        libraries, Python and fedpriv, and nothing else: no home, no other study, no key, no ``/etc``.

    Raises
    ------
    ConfigError
        If ``mode`` is ``required`` and bubblewrap is not to be had.
    """
    path = None if mode == "off" else bubblewrap()
    if path is None:
        if mode == "required":
            raise ConfigError(
                "This domain trains only inside bubblewrap, which does not work here",
                kept="Nothing was run",
                todo="install bubblewrap (see `fedpriv doctor`) or set resources.sandbox to preferred",
            )
        return list(command), "none"
    walls = [path, "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - an empty one of its own
    for folder in _SYSTEM:
        walls += ["--ro-bind-try", folder, folder]
    for place in (*_interpreter_folders(), *readable):
        walls += ["--ro-bind", str(place), str(place)]
    walls += ["--bind", str(writable), str(writable)]
    walls += ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
    return [*walls, "--chdir", str(writable), "--", *command], "bubblewrap"


def _interpreter_folders() -> list[Path]:
    """Return where Python, its packages and fedpriv lie."""
    package = Path(__file__).resolve().parents[1]
    folders = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), package}
    return sorted(folders)
