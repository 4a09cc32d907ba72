"""The inputs of every layer that an adapter is on, for many partial texts at once: what an attacker can compute, too.

A causal model's inputs at a position depend on what stands before it and on nothing else. So partial texts form a tree:
each node is a token after its parent. All nodes go through the model as one row, each seeing only what leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import PREFIX, AdapterState, Float32

Bool = NDArray[np.bool_]


@dataclass
class Tree:
    """Partial texts with common beginnings.

    Attributes
    ----------
    tokens : list of int
        One token a node.
    parents : list of int
        The node before each, always one of a smaller number; -1 where a text begins.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _beginnings: dict[tuple[int, int], int] = field(repr=False, default_factory=dict)

    def add(self, token: int, parent: int = -1) -> int:
        """Add a node and return its number."""
        self.tokens.append(token)
        self.parents.append(parent)
        return len(self.tokens) - 1

    def add_text(self, tokens: Sequence[int]) -> list[int]:
        """Add a text from its beginning and return the numbers of its nodes."""
        nodes: list[int] = []
        for token in tokens:
            nodes.append(self.add(token, nodes[-1] if nodes else -1))
        return nodes

    def add_beginning(self, tokens: Sequence[int]) -> int:
        """Add a text, or of it what no text before it began with, and return its last node; -1 if it is empty."""
        node = -1
        for token in tokens:
            if (node, token) not in self._beginnings:
                self._beginnings[node, token] = self.add(token, node)
            node = self._beginnings[node, token]
        return node

    def seen(self) -> tuple[Bool, NDArray[np.int64]]:
        """Return which nodes each node sees, (nodes, nodes), and the position of each in its text, (nodes,)."""
        visible = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                visible[node] |= visible[parent]
        return visible, visible.sum(axis=1) - 1


class LayerInputs:
    """Computes what the adapted layers of a model get.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    adapter : dict of ndarray of float32
        The adapter that is in the model.

    Attributes
    ----------
    groups : tuple of tuple of str
        Names of the tensors ``lora_A`` that get the same input, in the order in which the model reaches them.

    vocabulary : int
        How many tokens the model has.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    TrainingError
        If the adapter is of another model.
    """

    def __init__(self, model_folder: Path, lora: LoraChoice, adapter: AdapterState) -> None:
        self._folder, self._lora, self._adapter = model_folder, lora, adapter
        names, seen = self._run(Tree([3, 5], [-1, 0]), None)
        self._at: list[str] = []
        groups: list[list[str]] = []
        last: Any = None
        for name, tensor in zip(names, seen, strict=True):
            if tensor is not last:
                self._at.append(name)
                groups.append([])
            groups[-1].append(f"{PREFIX}{name.removeprefix(PREFIX)}.lora_A.weight")
            last = tensor
        self.groups = tuple(tuple(sorted(group)) for group in groups)
        embeddings: Any = self._model().get_input_embeddings()
        self.vocabulary = int(embeddings.weight.shape[0])

    def of(self, tree: Tree, groups: Sequence[int]) -> list[Float32]:
        """Return the inputs of these groups (rising numbers) for every node: for each, (nodes, width)."""
        names = [self._at[group] for group in groups]
        _, found = self._run(tree, names)
        return [tensor[0].float().cpu().numpy() for tensor in found]

    def _model(self) -> Any:
        """Return the model, which is shared with others, as it is to be here."""
        from fedpriv.training.model import load_model, put_adapter

        model = load_model(self._folder, self._lora)
        put_adapter(model, self._adapter)
        model.eval()
        return model

    def _run(self, tree: Tree, names: Sequence[str] | None) -> tuple[list[str], list[Any]]:
        """Return layers and their inputs, in the model's order: of all adapted ones, or of those of these names."""
        import torch
        from peft.tuners.lora import LoraLayer

        model = self._model()
        layers: dict[str, Any] = {
            name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
        }
        reached: list[str] = []
        found: list[torch.Tensor] = []

        def keep(name: str) -> Any:
            def hook(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
                reached.append(name)
                found.append(arguments[0])
                if names is not None and len(found) == len(names):
                    raise _FoundError

            return hook

        visible, positions = tree.seen()
        wanted = layers if names is None else names
        handles = [layers[name].register_forward_pre_hook(keep(name)) for name in wanted]
        try:
            with torch.no_grad():
                model(
                    input_ids=torch.tensor([tree.tokens], device=model.device),
                    position_ids=torch.tensor(positions[np.newaxis], device=model.device),
                    attention_mask=torch.tensor(visible[np.newaxis, np.newaxis], device=model.device),
                    use_cache=False,
                )
        except _FoundError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return reached, found


class _FoundError(Exception):
    """All wanted inputs are known; the rest of the model need not run."""
