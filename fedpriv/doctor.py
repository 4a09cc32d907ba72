"""What this machine has, what it lacks, and how to get it: the checks behind ``fedpriv doctor``.

A check never raises and never changes anything. What can crash or hang (native libraries, other programs) runs in a
child process with a deadline.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

State = Literal["ok", "missing", "warning"]

DEADLINE_S = 2.8
"""The longest that one child process may take."""

NEEDED_PYTHON = (3, 11)
PACKAGES = ("fedpriv", "torch", "transformers", "peft", "tenseal", "syft", "syft-rds")
LOW_DISK_BYTES = 4 * 2**30
LOW_MEMORY_BYTES = 4 * 2**30
DEFAULT_MODEL = "smollm2-135m-instruct"

_SET_UP = "run `sh bootstrap.sh setup` in fedpriv's folder"

_ADD_TWO_VECTORS = """
import tenseal
context = tenseal.context(tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=4096, plain_modulus=1032193)
total = tenseal.bfv_vector(context, [1, 2, 3]) + tenseal.bfv_vector(context, [10, 20, 30])
raise SystemExit(total.decrypt() != [11, 22, 33])
"""

_FIND_GPU = """
import torch
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    print(f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 2**30:.0f} GB")
elif torch.backends.mps.is_available():
    print("Apple GPU (mps)")
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What was looked at.
    state : {"ok", "missing", "warning"}
        ``missing``: fedpriv does not work without it. ``warning``: something works less well, or not at all times.
    found : str
        What is there, in words.
    how_to_get : str
        The next step if the state is not ``ok``, else empty.
    """

    name: str
    state: State
    found: str
    how_to_get: str = ""


def run_checks() -> list[Check]:
    """Look at everything, each thing for less than three seconds; nothing is changed or downloaded.

    Returns
    -------
    list[Check]
        In the order in which they are shown. A check that fails itself is a warning with its error.
    """
    checks = [_guarded("Python", check_python)]
    checks += [_guarded(name, lambda name=name: check_package(name)) for name in PACKAGES]
    others: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("encrypted sum", check_encryption),
        ("bubblewrap", check_bubblewrap),
        ("job walls", check_job_walls),
        ("notebooks", check_notebooks),
        ("chromium", check_chromium),
        ("GPU", check_gpu),
        ("base model", check_base_model),
        ("disk", check_disk),
        ("memory", check_memory),
        ("cores", check_cores),
    )
    return checks + [_guarded(name, check) for name, check in others]


def render(checks: list[Check]) -> Table:
    """Return the checks as a table for the terminal; markup in what was found is shown, not obeyed."""
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "missing": "[bold red]missing[/]"}
    table = Table(title="What fedpriv finds on this machine", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("What", style="bold", no_wrap=True)
    table.add_column("Found", overflow="fold")
    table.add_column("How to get it", overflow="fold")
    for check in checks:
        table.add_row(marks[check.state], escape(check.name), escape(check.found), escape(check.how_to_get))
    return table


def check_python() -> Check:
    """Look at the version of the running Python."""
    found = platform.python_version()
    if sys.version_info[:2] == NEEDED_PYTHON:
        return Check("Python", "ok", found)
    return Check("Python", "missing", found, "install Python 3.11, then " + _SET_UP)


def check_package(name: str) -> Check:
    """Look whether a package is installed, in the version that this fedpriv asks for."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", _SET_UP)
    wanted = _pinned_version(name)
    if wanted and found.split("+")[0] != wanted:
        return Check(name, "warning", f"{found}, while this fedpriv is made for {wanted}", _SET_UP)
    return Check(name, "ok", found)


def check_encryption() -> Check:
    """Let TenSEAL add two encrypted vectors, in a child process: a wheel for another processor would kill it."""
    name = "encrypted sum"
    try:
        done = _run([sys.executable, "-c", _ADD_TWO_VECTORS])
    except subprocess.TimeoutExpired:
        return Check(
            name, "warning", f"TenSEAL took longer than {DEADLINE_S} s", "run this again when less is going on"
        )
    if done.returncode == 0:
        return Check(name, "ok", "TenSEAL adds two encrypted vectors")
    reason = f"killed by signal {-done.returncode}" if done.returncode < 0 else _last_line(done.stderr)
    return Check(name, "missing", f"TenSEAL does not work ({reason or 'a wrong sum'})", _SET_UP)


def check_bubblewrap() -> Check:
    """Run ``true`` in bubblewrap without network, as a domain runs training code."""
    name = "bubblewrap"
    effect = "; without it a researcher's code runs with this user's rights and network"
    path = shutil.which("bwrap")
    if path is None:
        if sys.platform != "linux":
            return Check(name, "warning", "there is none for this system", "run domains on Linux" + effect)
        return Check(name, "warning", "not installed", f"install the package bubblewrap ({_installer()}){effect}")
    walls = [
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--unshare-user",
        "--unshare-net",
        "--unshare-pid",
    ]
    try:
        done = _run([path, *walls, "true"])
    except subprocess.TimeoutExpired:
        return Check(name, "warning", f"{path} took longer than {DEADLINE_S} s", "run this again")
    if done.returncode == 0:
        return Check(name, "ok", f"{path} runs programs without network")
    how = "allow user namespaces (in a container: the options of docs/containers.md)" + effect
    return Check(name, "warning", f"{path} cannot build its walls ({_last_line(done.stderr)})", how)


def check_job_walls() -> Check:
    """Look for what the kernel has to fence off each training job, inside of bubblewrap or without it."""
    from fedpriv.training.landlock import landlock_version
    from fedpriv.training.system_calls import can_filter

    name, version = "job walls", landlock_version()
    found = [*([f"Landlock {version}"] if version else []), *(["seccomp"] if can_filter() else [])]
    if len(found) < 2:
        how = "run domains on Linux 5.13 or later with Landlock in its list of security modules, x86-64 or 64-bit ARM"
        return Check(name, "warning", " and ".join(found) or "none", how)
    if os.geteuid() == 0:
        how = "run domains as a user of their own: the kernel exempts root from its limit of processes"
        return Check(name, "warning", " and ".join(found) + ", but you are root", how)
    return Check(name, "ok", " and ".join(found))


def check_notebooks() -> Check:
    """Look for what `fedpriv lab` and its panels need."""
    found, missing = [], []
    for name in ("jupyterlab", "ipywidgets", "anywidget"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        how = "run `pip install 'fedpriv[lab]'`; only `fedpriv lab` needs it"
        return Check("notebooks", "warning", f"not installed: {', '.join(missing)}", how)
    return Check("notebooks", "ok", ", ".join(found))


def check_chromium() -> Check:
    """Look for a browser for the tests of the notebooks."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    places = [shutil.which(name) for name in names]
    places += [
        path
        for path in ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
        if sys.platform == "darwin" and Path(path).exists()
    ]
    for path in filter(None, places):
        return Check("chromium", "ok", path)
    how = f"install chromium ({_installer()}); only the browser tests need it"
    return Check("chromium", "warning", "not installed", how)


def check_gpu() -> Check:
    """Ask torch, in a child process, for a CUDA or Apple GPU; a machine without either is not asked."""
    if importlib.util.find_spec("torch") is None:
        return Check("GPU", "warning", "torch is not installed", _SET_UP)
    devices = any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg", "/dev/kfd"))
    if not devices and sys.platform != "darwin":
        return Check("GPU", "ok", "none: training runs on the processor (resources > device)")
    try:
        done = _run([sys.executable, "-c", _FIND_GPU])
    except subprocess.TimeoutExpired:
        return Check("GPU", "warning", f"torch took longer than {DEADLINE_S} s to answer", "run this again")
    if done.returncode != 0:
        return Check("GPU", "warning", f"torch does not start ({_last_line(done.stderr)})", _SET_UP)
    if found := done.stdout.strip():
        return Check("GPU", "ok", found)
    how = "unset PIP_FIND_LINKS and UV_TORCH_BACKEND, remove .venv, " + _SET_UP
    return Check("GPU", "warning", "there is one, but this build of torch cannot use it", how)


def check_base_model() -> Check:
    """Look for base models in the cache; they are not read through."""
    given = os.environ.get("FEDPRIV_CACHE")
    cache = Path(given).expanduser() if given else Path.home() / ".cache" / "fedpriv"
    models = cache / "models"
    found = sorted(path.parent.name for path in models.glob("[!.]*/manifest.json")) if models.is_dir() else []
    if DEFAULT_MODEL in found:
        return Check("base model", "ok", f"{', '.join(found)} in {models}")
    how = f"the first study fetches {DEFAULT_MODEL}; without a network, copy {models} from another machine"
    return Check("base model", "warning", f"{', '.join(found) or 'none'} in {models}", how)


def check_disk() -> Check:
    """Look at the free space where fedpriv is run; at home where this user may not write here, as a service's user."""
    place, where = (Path.cwd(), "here") if os.access(".", os.W_OK) else (Path.home(), f"in {Path.home()}")
    free = shutil.disk_usage(place).free
    found = f"{_gigabytes(free)} free {where}"
    if free >= LOW_DISK_BYTES:
        return Check("disk", "ok", found)
    return Check("disk", "warning", found, f"free some: have {_gigabytes(LOW_DISK_BYTES)}")


def check_memory() -> Check:
    """Look at the memory that programs can still have."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{_gigabytes(memory.available)} free of {_gigabytes(memory.total)}"
    if memory.available >= LOW_MEMORY_BYTES:
        return Check("memory", "ok", found)
    return Check("memory", "warning", found, f"close programs: {_gigabytes(LOW_MEMORY_BYTES)} let three domains train")


def check_cores() -> Check:
    """Look at the processor cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 2:
        return Check("cores", "ok", f"{cores}")
    return Check("cores", "warning", "1", "a second core lets a domain seal while another trains")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name, "warning", f"could not be looked at ({type(error).__name__}: {error})", _SET_UP)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program quietly, for at most ``DEADLINE_S``; a program that cannot be started counts as failed."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:160] if lines else "no reason given"


def _pinned_version(name: str) -> str:
    """Return the version that fedpriv's metadata asks for with ``==``, or nothing."""
    try:
        requirements = importlib.metadata.requires("fedpriv") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    for requirement in requirements:
        package, _, version = requirement.partition(";")[0].partition("==")
        if package.strip() == name:
            return version.strip()
    return ""


def _installer() -> str:
    for program, words in (("apt-get", "apt-get install"), ("dnf", "dnf install"), ("brew", "brew install")):
        if shutil.which(program):
            return words
    return "with your system's package manager"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
