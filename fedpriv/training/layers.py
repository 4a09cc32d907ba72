"""Which layers of a base model LoRA can adapt, kept beside its weights: read without torch, by the light processes.

The model itself says it, once, when it comes to this machine (:mod:`fedpriv.training.find_layers`): the names in a
file of weights are not always those of the layers, and not every architecture keeps its weights the same way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import ModelError, UntrustedError
from fedpriv.files import parse_json, write_atomic

LAYERS = "layers.safetensors"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One linear layer.

    Attributes
    ----------
    inputs : int
        How many numbers go in.
    norms : ndarray of float32, (outputs,)
        L2 norm of the weights of each output, see :func:`row_norms`.
    """

    inputs: int
    norms: NDArray[np.float32]

    @property
    def outputs(self) -> int:
        """How many numbers come out."""
        return len(self.norms)


def row_norms(weight: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the L2 norm of each row of a float32 matrix: DoRA's magnitudes at the start (arXiv 2402.09353).

    *Guarantee*: the same bits on every machine. Squares of float32 are exact in float64; they are added element by
    element in an order of our own, halving the row, and the square root is correctly rounded.

    Parameters
    ----------
    weight : ndarray of float32, (outputs, inputs)

    Returns
    -------
    ndarray of float32, (outputs,)
    """
    squares = np.square(weight, dtype=np.float64)
    while squares.shape[1] > 1:
        half = squares.shape[1] // 2
        folded = squares[:, :half] + squares[:, half : 2 * half]
        squares = np.concatenate([folded, squares[:, 2 * half :]], axis=1)
    return np.sqrt(squares[:, 0]).astype(np.float32)


def write_layers(folder: Path, layers: Mapping[str, Layer]) -> None:
    """Write what is known of a model's linear layers, by the names that the model gives them."""
    from safetensors.numpy import save

    inputs = json.dumps({name: layers[name].inputs for name in sorted(layers)})
    norms = {name: np.ascontiguousarray(layers[name].norms, np.float32) for name in sorted(layers)}
    write_atomic(folder / LAYERS, save(norms, {"inputs": inputs}))


def load_layers(folder: Path) -> dict[str, Layer]:
    """Return a model's linear layers by name, sorted.

    Raises
    ------
    ModelError
        If the file is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / LAYERS, framework="numpy") as file:
            inputs: dict[str, int] = parse_json((file.metadata() or {})["inputs"].encode(), source=LAYERS)
            return {name: Layer(inputs=int(inputs[name]), norms=file.get_tensor(name)) for name in sorted(inputs)}
    except (OSError, SafetensorError, UntrustedError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"What is known of the layers of {folder.name} cannot be read", todo="fetch the model again"
        ) from error
