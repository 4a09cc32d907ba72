"""JupyterLab on the notebooks, with nothing fetched from the network, and the demo federation that notebooks join."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fedpriv.errors import ConfigError, LockError
from fedpriv.experiments.federation import RECORD, Federation

LAB_WORK = Path(".fedpriv/lab")
JOIN = "FEDPRIV_LAB"
"""Names the folder of the federation that ``fedpriv lab --demo`` runs, for the notebooks it opens."""

_CONFIG = Path(__file__).parent / "lab_config"
_PACKAGE = Path(__file__).parents[1]
_READY_S = 60.0


def demo_federation(*, model: str = "tiny", domains: int = 3, work: Path = LAB_WORK) -> Federation:
    """Return a federation whose data owners decide themselves, with its domains running.

    It is the one that ``fedpriv lab --demo`` runs, in a notebook that this opened. Elsewhere it is one in ``work``, as
    it was left or made anew, whose domains end with this process.

    Parameters
    ----------
    model, domains
        Of a federation that is made anew.
    """
    there = os.environ.get(JOIN)
    if there:
        return Federation.join(Path(there))
    known = _running.get(work.resolve())
    if known is None:
        known = _running[work.resolve()] = join_or_start(work, model=model, domains=domains)
        atexit.register(known.close)
    return known


_running: dict[Path, Federation] = {}
"""Those of this process: a cell that is run twice finds the federation that it started."""


def join_or_start(
    work: Path,
    *,
    model: str = "tiny",
    domains: int = 3,
    mimic: Path | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Federation:
    """Return the federation in a folder with its domains running: that of another process, or one that this starts.

    Raises
    ------
    LockError
        If it is to be made ``fresh`` while it runs.
    """
    try:
        return open_or_create(work, model=model, domains=domains, mimic=mimic, fresh=fresh, say=say).start()
    except LockError:
        if fresh:
            raise
        say(f"joining the domains that run in {work}")
        return Federation.join(work)


def open_or_create(
    work: Path,
    *,
    model: str = "tiny",
    domains: int = 3,
    mimic: Path | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Federation:
    """Return the federation in a folder, as it was left; a new one where there is none, or ``fresh``.

    Raises
    ------
    LockError
        If it runs already.
    """
    if (work / RECORD).exists() and not fresh:
        federation = Federation.take_up(work)
        say(f"going on with the domains in {work}")
        return federation
    return Federation.create(mimic=mimic, model=model, domains=domains, work=work, ask=True, say=say)


def notebooks_folder(here: Path) -> Path:
    """Return the folder with the notebooks: that of a source tree, or a copy of the installed ones in ``here``.

    Nothing that is there already is written over.
    """
    ours = _shared("notebooks")
    if ours.parent == _PACKAGE.parent:
        return ours
    copy = here / "notebooks"
    copy.mkdir(exist_ok=True)
    for path in sorted(ours.glob("*.ipynb")):
        if not (copy / path.name).exists():
            shutil.copy(path, copy / path.name)
    return copy


def example_mapping() -> Path:
    """Return the ``mapping.yaml`` of the example domain whose tables have another schema."""
    return _shared("domains") / "ccu" / "mapping.yaml"


def _shared(name: str) -> Path:
    """Return a folder beside the package: of the source tree, or as it was installed."""
    for parent in (_PACKAGE.parent, Path(sys.prefix) / "share" / "fedpriv"):
        if (parent / name).is_dir():
            return parent / name
    raise ConfigError(f"The folder {name} is not installed", todo="install fedpriv again, or use its source tree")


class JupyterLab:
    """A JupyterLab server of our own: on loopback, with a token, and silent towards the network.

    Parameters
    ----------
    notebooks : Path
        What it shows.
    environment : mapping of str to str
        Added to that of the kernels.
    arguments : tuple of str
        Further ones of ``jupyter lab``.
    """

    def __init__(self, notebooks: Path, environment: Mapping[str, str], arguments: tuple[str, ...] = ()) -> None:
        paths = [str(_CONFIG), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
        self._environment = {**os.environ, **environment, "JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}
        self._command = [
            *(sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebooks.resolve()}"),
            *("--log-level=ERROR", *arguments),
            *(("--allow-root",) if os.geteuid() == 0 else ()),  # a container's only user, often
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it and return its address, token included.

        Raises
        ------
        ConfigError
            If it ends, or does not answer within a minute.
        """
        # A session of its own: Ctrl-C reaches our process only, which then ends the server without its question.
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        end = time.monotonic() + _READY_S
        while time.monotonic() < end and self.process.poll() is None:
            if (url := self._address()) is not None:
                return url
            time.sleep(0.1)
        self.stop()
        raise ConfigError("JupyterLab did not start", todo="read what it printed above; `fedpriv doctor` looks for it")

    def wait(self) -> int:
        """Wait until it ends, such as with File > Shut Down, and return its exit code."""
        return 0 if self.process is None else self.process.wait()

    def stop(self) -> None:
        """End it and its kernels."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _address(self) -> str | None:
        """Return what the server wrote down for others of this user; None while it has not, or does not listen yet."""
        from jupyter_core.paths import jupyter_runtime_dir

        folder = Path(self._environment.get("JUPYTER_RUNTIME_DIR") or jupyter_runtime_dir())
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = json.loads((folder / f"jpserver-{self.process.pid if self.process else 0}.json").read_text())
            with socket.create_connection((urlsplit(found["url"]).hostname, int(found["port"])), timeout=5):
                return f"{found['url']}lab?token={found['token']}"
        return None
