"""Flower in a virtual environment of its own, made at the first use, and rounds of its simulation there.

What Flower needs would hold back what fedpriv needs, and half a GB is much for a comparison; what fedpriv carries over
it needs nothing of fedpriv there. ``pins.txt`` names the version of every package; pip takes them from wherever it is
configured to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fedpriv.errors import ConfigError, StudyError
from fedpriv.files import folder_lock, private_folder, write_atomic
from fedpriv.training.base_model import default_cache

PINS = Path(__file__).with_name("pins.txt")
SCRIPT = Path(__file__).with_name("round.py")
_READY = "ready"
_INSTALL_S, _RUN_S = 900, 300


def flower_version() -> str:
    """Return the version of Flower that is pinned."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("flwr=="))


def installed_flower() -> Path | None:
    """Return the Python of the environment if it was made before, else None."""
    home = _home()
    return _python(home) if (home / _READY).exists() else None


def flower_environment() -> Path:
    """Return the Python of the environment with exactly the pinned packages, making it if it is not complete.

    Raises
    ------
    ConfigError
        If it cannot be installed, as without a network.
    """
    home = _home()
    python = _python(home)
    lock = home.with_suffix(".lock")
    with folder_lock(lock, holder="Another benchmark", todo="wait until it has installed Flower"):
        if not (home / _READY).exists():
            shutil.rmtree(home, ignore_errors=True)  # what a kill left half installed
            _run([sys.executable, "-m", "venv", str(home)], timeout_s=_INSTALL_S)
            _run(
                [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "-r", str(PINS)], timeout_s=_INSTALL_S
            )
            write_atomic(home / _READY, PINS.read_bytes())
    return python


def _home() -> Path:
    return private_folder(default_cache() / "bench") / f"flower-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]}"


def _python(home: Path) -> Path:
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


def flower_rounds(sizes: Sequence[int], *, clients: int, rounds: int) -> list[float]:
    """Return the seconds of each round of Flower's simulation in which clients send the payload back untouched.

    Parameters
    ----------
    sizes : sequence of int
        float32 parameters of each tensor.
    clients : int
        How many there are; as many can run at once.
    rounds : int
        How many are timed, after a first one, which also starts the workers and is left out.

    Raises
    ------
    ConfigError
        If Flower cannot be installed.
    StudyError
        If its simulation failed.
    """
    python = flower_environment()
    with tempfile.TemporaryDirectory(prefix="fp-") as name:  # short: Ray's sockets below it have a limit of 107 letters
        out = Path(name) / "seconds.json"
        order = {"sizes": list(sizes), "clients": clients, "rounds": rounds + 1, "temporary": name, "out": str(out)}
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_HOME": str(Path(name) / "flower")}
        try:
            done = subprocess.run(
                [str(python), str(SCRIPT), json.dumps(order)],
                env=os.environ | quiet,
                cwd=name,
                capture_output=True,
                text=True,
                timeout=_RUN_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StudyError(f"Flower's simulation took over {_RUN_S} s", kept="Nothing was compared") from error
        if not out.exists():
            raise StudyError(f"Flower's simulation failed: {_last_line(done.stderr)}", kept="Nothing was compared")
        return [float(second) for second in json.loads(out.read_text(encoding="utf-8"))[1:]]


def _run(command: list[str], *, timeout_s: float) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)
    except (subprocess.SubprocessError, OSError) as error:
        told = _last_line(str(getattr(error, "stderr", "") or error))
        raise ConfigError(
            f"Flower {flower_version()}, which is compared with, could not be installed: {told}",
            kept="fedpriv's own figures do not need it",
            todo="try again with a network that reaches pip's index, or give --without-flower",
        ) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


if __name__ == "__main__":
    sys.stdout.write(f"{flower_environment()}\n")
