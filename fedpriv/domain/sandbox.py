"""The walls around training: a clean environment, bubblewrap without network, Landlock and seccomp around every job.

bubblewrap holds the worker: no network, processes and users of its own, a view of the disk with nothing in it but what
training needs. Landlock, seccomp and the kernel's limits hold each job in it: one process, its own output folder, its
share of the machine.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.domain.folder import ResourcesChoice, SandboxMode
from fedpriv.domain.gpu import GPU_READABLE
from fedpriv.errors import ConfigError
from fedpriv.training.landlock import landlock_version
from fedpriv.training.system_calls import can_filter

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
_READABLE = (*_SYSTEM, "/proc", "/dev", "/etc/nsswitch.conf")
"""What a job may read beside its own files; in bubblewrap hardly more of it exists."""

_HOSTS = Path(__file__).with_name("hosts")
"""The names of machines inside: localhost, which `accelerate launch` asks for; this machine's own file is not shown."""

_WRITABLE = ("/dev/null", "/dev/shm", "/dev/zero")  # noqa: S108 - in bubblewrap one of its own
_OWN_PROCESS = ("/proc/self",)
"""A job's own, not that of the worker: it is looked up by the job itself."""

_TEMPORARY_BYTES = 256 * 2**20
_STARTING_CPU_S = 120
"""Processor seconds for loading the model and evaluating, beyond those of the training itself."""

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES")


_UNSHARED = (
    "--unshare-user",
    "--unshare-net",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
)


@functools.cache
def bubblewrap() -> str | None:
    """Return the path of a bubblewrap that really works here, or None.

    Asked with a /proc of its own, as the sandbox has it: a container whose /proc is masked lets the rest.
    """
    path = shutil.which("bwrap")
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "--ro-bind", "/", "/", *_UNSHARED, "--proc", "/proc", "--dev", "/dev", "true"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def clean_environment(threads: int, scratch: str) -> dict[str, str]:
    """Return the environment of a training worker: nothing of the domain's own but where programs are."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        "HOME": scratch,
        "LOGNAME": "fedpriv",  # torch names a folder by who runs it, and nobody has a name inside
        "TMPDIR": scratch,
        "HF_HOME": f"{scratch}/hf",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it, a GPU multiplies matrices in another order each time
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # it could not, and would be noticed as writing elsewhere
    }


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a training worker of one study may see and do.

    Attributes
    ----------
    mode : {"required", "preferred", "off"}
        ``required`` refuses to train without bubblewrap; ``preferred`` takes what there is; ``off`` takes nothing but
        the limits.
    readable : tuple of Path
        What the worker may read. Beside it, it sees the system's programs and libraries, Python and fedpriv, and
        nothing else: no home, no other study, no key, no ``/etc``.
    writable : Path
        The one folder that it may write. A job may write only its own output folder in it.
    gpu : tuple of Path
        Device files of graphics processors that it may use (:func:`fedpriv.domain.gpu.gpu_files`).
    """

    mode: SandboxMode
    readable: tuple[Path, ...]
    writable: Path
    gpu: tuple[Path, ...] = ()

    @property
    def walls(self) -> tuple[str, ...]:
        """The walls that stand here, for the ledger: some of ``bubblewrap``, ``landlock`` and ``seccomp``.

        Raises
        ------
        ConfigError
            If ``mode`` is ``required`` and bubblewrap is not to be had.
        """
        if self.mode == "off":
            return ()
        found = ("bubblewrap",) if bubblewrap() else ()
        if self.mode == "required" and not found:
            raise ConfigError(
                "This domain trains only inside bubblewrap, which does not work here",
                kept="Nothing was run",
                todo="install bubblewrap (see `fedpriv doctor`) or set resources.sandbox to preferred",
            )
        return (*found, *(("landlock",) if landlock_version() else ()), *(("seccomp",) if can_filter() else ()))

    @property
    def scratch(self) -> str:
        """The folder for temporary files: in bubblewrap one in memory, gone with the worker."""
        return "/scratch" if "bubblewrap" in self.walls else str(self.writable / "scratch")

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command inside its walls."""
        path = bubblewrap() if "bubblewrap" in self.walls else None
        if path is None:
            return list(command)
        room = ("--size", str(_TEMPORARY_BYTES), "--tmpfs")
        walls = [path, *_UNSHARED, *_no_more_users(path), "--die-with-parent", "--new-session"]
        walls += ["--proc", "/proc", "--dev", "/dev", *room, "/dev/shm", *room, self.scratch]  # noqa: S108
        for folder in _SYSTEM:
            walls += ["--ro-bind-try", folder, folder]
        walls += ["--ro-bind", str(_HOSTS), "/etc/hosts"]
        for place in self.gpu:
            walls += ["--dev-bind", str(place), str(place)]
        for folder in GPU_READABLE if self.gpu else ():
            walls += ["--ro-bind-try", folder, folder]
        for place in (*interpreter_folders(), *self.readable):
            walls += ["--ro-bind", str(place), str(place)]
        walls += ["--bind", str(self.writable), str(self.writable), "--remount-ro", "/dev", "--remount-ro", "/"]
        # A domain that runs as root could else set the kernel's own settings; but CUDA names its threads, in /proc.
        walls += _settings_read_only() if self.gpu else ["--remount-ro", "/proc"]
        return [*walls, "--chdir", str(self.writable), "--", *command]

    def fence(
        self, resources: ResourcesChoice, files: Sequence[Path], *, max_seconds: float, processes: int = 1
    ) -> dict[str, Any]:
        """Return the fence of one job (:class:`fedpriv.training.jobs.Fence`): it reads ``files`` and no other data."""
        readable = [*_READABLE, *map(str, interpreter_folders()), *map(str, files)]
        readable += GPU_READABLE if self.gpu else ()
        return {
            "readable": readable,
            "writable": [*_WRITABLE, self.scratch, *map(str, self.gpu), *(_OWN_PROCESS if self.gpu else ())],
            "walls": self.mode != "off",
            # CUDA maps far more than it uses: there, the watchdog alone looks at what is used
            "memory_bytes": None if self.gpu else resources.memory_bytes,
            "file_bytes": resources.disk_bytes,
            "cpu_s": int(cpu_seconds(resources, max_seconds, processes)),
            "processes": resources.processes if "bubblewrap" in self.walls else None,
        }


def cpu_seconds(resources: ResourcesChoice, max_seconds: float, processes: int = 1) -> float:
    """Return the processor seconds that a job of so many seconds may use, loading and evaluating included."""
    return max_seconds * max(resources.threads, processes) + _STARTING_CPU_S * processes


def _settings_read_only() -> list[str]:
    """Return the options that leave of /proc only the processes in the sandbox to be written."""
    kernels = sorted(place for place in Path("/proc").iterdir() if not place.name.isdigit() and not place.is_symlink())
    return [word for place in kernels for word in ("--ro-bind-try", str(place), str(place))]


@functools.cache
def _no_more_users(path: str) -> tuple[str, ...]:
    """Return the option that forbids user namespaces inside, if this bubblewrap knows it (0.8 and later)."""
    option = ("--disable-userns",)
    done = subprocess.run(
        [path, "--ro-bind", "/", "/", *_UNSHARED, *option, "true"], capture_output=True, timeout=10, check=False
    )
    return option if done.returncode == 0 else ()


@functools.cache
def interpreter_folders() -> tuple[Path, ...]:
    """Return where Python, its packages and fedpriv lie."""
    package = Path(__file__).resolve().parents[1]
    return tuple(sorted({Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), package}))
