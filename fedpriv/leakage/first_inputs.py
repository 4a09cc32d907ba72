"""The inputs of the first layers that an adapter is on: of single tokens, they are known to all who have the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpriv.errors import ModelError
from fedpriv.leakage.pursuit import Float64
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import PREFIX

if TYPE_CHECKING:
    import torch

_AT_ONCE = 4096
_SAME = 1e-4
"""Largest difference between two inputs that rounding explains, as a part of the largest value."""


def first_inputs(model_folder: Path, lora: LoraChoice) -> tuple[tuple[str, ...], Float64]:
    """Return which tensors ``lora_A`` share the input of the first adapted layer, and that input for every token.

    Returns
    -------
    tensors : tuple of str
        For Llama and its kin those of the first block's attention, as far as they are adapted.
    atoms : ndarray of float64, (vocabulary, width)
        The input that each token gives.

    Raises
    ------
    ModelError
        If an input depends on more than its own token, such as its position (GPT-2), or the model cannot be loaded.
    """
    from fedpriv.training.model import load_model

    model = load_model(model_folder, lora)
    model.eval()
    first = _First(model)
    (alone, repeated), (_, after_another) = first.inputs([[3, 3], [5, 3]])
    if max(np.abs(repeated - alone).max(), np.abs(after_another - alone).max()) > _SAME * np.abs(alone).max():
        raise ModelError(
            "The first adapted layer of this base model sees more than single tokens",
            todo="adapt the first block's attention, of a model with rotary positions",
        )
    embeddings: Any = model.get_input_embeddings()
    size = int(embeddings.weight.shape[0])
    parts = [range(start, min(start + _AT_ONCE, size)) for start in range(0, size, _AT_ONCE)]
    return first.tensors, np.concatenate([first.inputs([[token] for token in part])[:, 0] for part in parts])


class _FoundError(Exception):
    """The first adapted layer was reached; the rest of the model need not run."""


class _First:
    """The inputs of the first adapted layers of a model."""

    def __init__(self, model: Any) -> None:
        from peft.tuners.lora import LoraLayer

        self._model = model
        self._layers: dict[str, Any] = {
            name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
        }
        self.tensors = self._sharing()

    def _sharing(self) -> tuple[str, ...]:
        """Return the tensors of all layers that get the very input of the first one."""
        import torch

        seen: list[tuple[str, torch.Tensor]] = []
        handles = [
            module.register_forward_pre_hook(lambda _module, args, name=name: seen.append((name, args[0])))
            for name, module in self._layers.items()
        ]
        try:
            with torch.no_grad():
                self._model(input_ids=torch.tensor([[3, 5]], device=self._model.device))
        finally:
            for handle in handles:
                handle.remove()
        first = seen[0][1]
        self._at = self._layers[seen[0][0]]
        names = [name.removeprefix(PREFIX) for name, tensor in seen if tensor is first]
        return tuple(sorted(f"{PREFIX}{name}.lora_A.weight" for name in names))

    def inputs(self, tokens: list[list[int]]) -> Float64:
        """Return what the first adapted layer gets for rows of tokens: (rows, length, width)."""
        import torch

        found: list[torch.Tensor] = []

        def stop(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            found.append(arguments[0])
            raise _FoundError

        handle = self._at.register_forward_pre_hook(stop)
        try:
            with torch.no_grad():
                self._model(input_ids=torch.tensor(tokens, device=self._model.device))
        except _FoundError:
            pass
        finally:
            handle.remove()
        return found[0].double().cpu().numpy()
