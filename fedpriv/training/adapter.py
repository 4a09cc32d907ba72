"""The LoRA adapter as plain arrays: built, hashed, flattened, stored. No torch, so that the domain process stays light.

An adapter state is a ``dict`` from PEFT's parameter names (``base_model.model.<module>.lora_A.weight``) to float32
arrays: ``lora_A`` of shape (rank, inputs), ``lora_B`` of shape (outputs, rank), and where the adapter is DoRA (Liu et
al. 2024, arXiv 2402.09353) ``lora_magnitude_vector`` of shape (outputs,). Wherever order matters, it is the sorted
order of the names.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import GatekeeperError, ModelError, UntrustedError
from fedpriv.files import canonical_json, open_plain, parse_json, sync_folder, write_atomic
from fedpriv.study.plan import LoraChoice
from fedpriv.training.layers import Layer, load_layers

Float32 = NDArray[np.float32]
AdapterState = dict[str, Float32]
Layout = dict[str, tuple[int, ...]]

PREFIX = "base_model.model."
MAGNITUDE = ".lora_magnitude_vector"
MAX_ADAPTER_BYTES = 4 * 2**30
MAX_HEADER_BYTES = 16 * 2**20
MAX_METRICS_BYTES = 64 * 1024


def lora_layout(model_folder: Path, lora: LoraChoice) -> Layout:
    """Return the names and shapes of the adapter that ``lora`` puts on a model; reads no weights.

    Raises
    ------
    ModelError
        If the model has no linear layer of a targeted name, its output layer not counted.
    """
    return layout_of_layers(load_layers(model_folder), lora)


def layout_of_layers(layers: Mapping[str, Layer], lora: LoraChoice) -> Layout:
    """Return the names and shapes of the adapter on a model with these linear layers; raises as :func:`lora_layout`."""
    names = {name.split(".")[-1] for name in layers}
    if missing := sorted(set(lora.targets) - names):
        raise ModelError(
            f"The base model has no layer {missing[0]!r} that LoRA can adapt",
            todo=f"choose lora > targets from {', '.join(sorted(names))}",
        )
    layout: Layout = {}
    for name, layer in layers.items():
        if name.split(".")[-1] in lora.targets:
            layout[f"{PREFIX}{name}.lora_A.weight"] = (lora.rank, layer.inputs)
            layout[f"{PREFIX}{name}.lora_B.weight"] = (layer.outputs, lora.rank)
            if lora.use_dora:
                layout[f"{PREFIX}{name}{MAGNITUDE}"] = (layer.outputs,)
    return dict(sorted(layout.items()))


def starting_adapter(model_folder: Path, lora: LoraChoice, seed: int) -> AdapterState:
    """Return the adapter that every domain starts from; with it, the model computes what it does without.

    Parameters
    ----------
    seed : int
        The plan's seed, see :func:`initial_adapter`.

    Returns
    -------
    dict[str, ndarray of float32]
        Where ``lora`` is DoRA, its magnitudes are the norms of the base model's weights
        (:func:`fedpriv.training.layers.row_norms`).

    Raises
    ------
    ModelError
        As :func:`lora_layout`.
    """
    layers = load_layers(model_folder)
    layout = layout_of_layers(layers, lora)
    magnitudes = {name for name in layout if name.endswith(MAGNITUDE)}
    state = initial_adapter({name: shape for name, shape in layout.items() if name not in magnitudes}, seed)
    for name in magnitudes:
        state[name] = layers[name.removeprefix(PREFIX).removesuffix(MAGNITUDE)].norms
    return dict(sorted(state.items()))


def initial_adapter(layout: Mapping[str, tuple[int, ...]], seed: int) -> AdapterState:
    """Return LoRA's factors at the start: ``lora_A`` Kaiming-uniform, ``lora_B`` zero.

    Parameters
    ----------
    layout : Mapping[str, tuple[int, ...]]
        Names and shapes, see :func:`lora_layout`.
    seed : int
        The plan's seed. Each tensor has its own Philox stream, keyed by seed and name, of which only the raw 64-bit
        output is used: the same bits on every machine and with every version of numpy.

    Returns
    -------
    dict[str, ndarray of float32]
        ``lora_A`` uniform in ±1/sqrt(inputs), as PEFT draws it (Kaiming-uniform with a = sqrt(5)).
    """
    state: AdapterState = {}
    for name in sorted(layout):
        shape = layout[name]
        bound = 1.0 / math.sqrt(shape[-1])
        is_b = name.endswith(".lora_B.weight")
        state[name] = np.zeros(shape, np.float32) if is_b else uniform(shape, bound, f"adapter/{seed}/{name}")
    return state


def uniform(shape: tuple[int, ...], bound: float, label: str) -> Float32:
    """Return float32 values uniform in [-bound, bound), a function of ``label`` alone on every machine."""
    key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "big")
    raw = np.random.Philox(key=key).random_raw(math.prod(shape))
    unit = (raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    return (unit * bound).astype(np.float32).reshape(shape)


def layout_of(state: Mapping[str, Float32]) -> Layout:
    """Return names and shapes of a state, in sorted order."""
    return {name: tuple(state[name].shape) for name in sorted(state)}


def layout_digest(layout: Layout) -> str:
    """Return the SHA-256 (hex) of names and shapes: what a sealed update's header calls ``layout``."""
    sorted_layout = [[name, list(layout[name])] for name in sorted(layout)]
    return hashlib.sha256(b"fedpriv layout 1\n" + canonical_json(sorted_layout)).hexdigest()


def adapter_digest(state: Mapping[str, Float32]) -> str:
    """Return the SHA-256 (hex) of names, shapes and little-endian float32 bytes: equal only for bit-equal adapters."""
    digest = hashlib.sha256(b"fedpriv adapter 1\n" + layout_digest(layout_of(state)).encode())
    for name in sorted(state):
        digest.update(np.ascontiguousarray(state[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def flatten(state: Mapping[str, Float32]) -> Float32:
    """Return all parameters as one float32 vector, tensors in sorted-name order, each in row-major order."""
    if not state:
        return np.zeros(0, np.float32)
    return np.concatenate([np.asarray(state[name], np.float32).ravel() for name in sorted(state)])


def unflatten(vector: NDArray[Any], like: Mapping[str, Float32]) -> AdapterState:
    """Return the state whose :func:`flatten` is ``vector``, with names and shapes of ``like``; arrays are copies.

    Raises
    ------
    GatekeeperError
        If ``vector`` is not one-dimensional or not of the length of ``like``.
    """
    total = sum(array.size for array in like.values())
    if vector.ndim != 1 or vector.size != total:
        raise GatekeeperError(f"A vector of shape {vector.shape} is not an adapter of {total} parameters")
    state: AdapterState = {}
    start = 0
    for name in sorted(like):
        stop = start + like[name].size
        state[name] = np.array(vector[start:stop], np.float32).reshape(like[name].shape)
        start = stop
    return state


def check_state(state: Mapping[str, Any], layout: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Refuse a state with other names, shapes or types than expected, or with a value that is not finite.

    *Guarantee*: a message says nothing that the state could choose, a name or a shape for example: messages leave the
    domain, and an untrusted process may have written the state to carry notes in them.

    Raises
    ------
    GatekeeperError
        Naming the first offending parameter of ``layout``.
    """
    if layout is not None and (missing := sorted(set(layout) - set(state))):
        raise GatekeeperError(f"The adapter does not have the plan's parameter {missing[0]!r}")
    if layout is not None and set(state) != set(layout):
        raise GatekeeperError("The adapter has a parameter that the plan does not have")
    for name, array in state.items():
        which = "A parameter" if layout is None else f"The parameter {name!r}"
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            raise GatekeeperError(f"{which} is not a float32 array")
        if layout is not None and array.shape != tuple(layout[name]):
            raise GatekeeperError(f"{which} has another shape than {tuple(layout[name])}")
        if not np.isfinite(array).all():
            raise GatekeeperError(f"{which} holds a value that is not finite")


def save_state(state: Mapping[str, Float32], path: Path) -> None:
    """Write a state as safetensors, atomically, readable by its owner only.

    Raises
    ------
    GatekeeperError
        If a parameter is not float32 or not finite; nothing is written then.
    """
    from safetensors.numpy import save

    check_state(state)
    write_atomic(path, save({name: np.ascontiguousarray(state[name]) for name in sorted(state)}, {"format": "pt"}))


def load_state(path: Path, layout: Mapping[str, tuple[int, ...]] | None = None) -> AdapterState:
    """Read a state that an untrusted process may have written.

    Parameters
    ----------
    path : Path
        A plain file; a link is not followed.
    layout : Mapping[str, tuple[int, ...]], optional
        The names and shapes it must have. Bounds the file's size, too.

    Raises
    ------
    UntrustedError
        If it is not a plain file, too large, or not safetensors.
    GatekeeperError
        If names, shapes or types differ, or a value is not finite.
    """
    limit = MAX_ADAPTER_BYTES if layout is None else 4 * sum(map(math.prod, layout.values())) + MAX_HEADER_BYTES
    return parse_state(read_plain_file(path, max_bytes=limit), layout, source=path.name)


def parse_state(
    data: bytes, layout: Mapping[str, tuple[int, ...]] | None = None, *, source: str = "the adapter"
) -> AdapterState:
    """Parse safetensors bytes as a state; raises as :func:`load_state`."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise UntrustedError(f"{source} is not a safetensors file", kept="It was not used") from error
    state: AdapterState = {}
    for name, entry in entries:
        if entry["dtype"] != "F32":
            raise GatekeeperError("A parameter of the adapter is not of type F32")
        state[name] = np.frombuffer(bytes(entry["data"]), "<f4").astype(np.float32).reshape(entry["shape"])
    check_state(state, layout)
    return dict(sorted(state.items()))


def load_metrics(path: Path) -> dict[str, float]:
    """Read the metrics file that a training child wrote: a flat JSON object of finite numbers.

    Raises
    ------
    UntrustedError
        If it is not a plain small JSON file.
    GatekeeperError
        If it is not an object of numbers. Which names may leave is the gatekeeper's to decide.
    """
    value = parse_json(read_plain_file(path, max_bytes=MAX_METRICS_BYTES), source=path.name)
    if not isinstance(value, dict) or not all(type(number) in (int, float) for number in value.values()):
        raise GatekeeperError("The metrics are not an object of numbers")
    try:
        metrics = {name: float(number) for name, number in value.items()}
    except OverflowError as error:
        raise GatekeeperError("A metric is too large for a number") from error
    if not all(map(math.isfinite, metrics.values())):
        raise GatekeeperError("A metric is not finite")
    return metrics


def read_plain_file(path: Path, *, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes`` without following a link or waiting on a pipe.

    Raises
    ------
    UntrustedError
        If it is missing, a link, not a regular file, or too large.
    """
    try:
        descriptor = open_plain(path)
    except OSError as error:
        raise UntrustedError(f"{path.name} is missing or not a plain file", kept="It was not read") from error
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UntrustedError(f"{path.name} is larger than {max_bytes} bytes", kept="It was not used")
    return data


def write_peft_folder(
    state: Mapping[str, Float32],
    folder: Path,
    *,
    lora: LoraChoice,
    base_model_name: str,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter as an ordinary PEFT directory: ``PeftModel.from_pretrained(base, folder)`` loads it.

    Parameters
    ----------
    state : Mapping[str, ndarray of float32]
        The adapter.
    folder : Path
        Created if needed; ``adapter_config.json`` and ``adapter_model.safetensors`` in it are replaced.
    lora : LoraChoice
        Rank, alpha, dropout and targets for the configuration.
    base_model_name : str
        Hub id or path of the base model that the adapter belongs to.
    notes : Mapping[str, str], optional
        Written as metadata into the weights' header, such as the study id.

    Returns
    -------
    Path
        ``folder``.
    """
    from safetensors.numpy import save

    check_state(state)
    config = {
        "base_model_name_or_path": base_model_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted(lora.targets),
        "task_type": "CAUSAL_LM",
        "use_dora": lora.use_dora,
        "use_rslora": lora.rslora,
    }
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", **(notes or {})}
    weights = save({name: np.ascontiguousarray(state[name]) for name in sorted(state)}, metadata)
    write_atomic(folder / "adapter_model.safetensors", weights)
    write_atomic(folder / "adapter_config.json", json.dumps(config, indent=2).encode() + b"\n")
    sync_folder(folder)
    return folder
