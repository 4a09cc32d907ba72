"""What an attacker knows of the layers that an adapter is on, before it sees an update: how their inputs look."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.evidence import Evidence
from fedpriv.leakage.factors import first_factors
from fedpriv.leakage.layer_inputs import LayerInputs, Tree
from fedpriv.leakage.pursuit import Float64, inverse_root
from fedpriv.leakage.views import View
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState, Float32
from fedpriv.training.examples import Example

_EXACT, _NOISY = 1e-6, 0.1
"""Softness of the evidence (:class:`fedpriv.leakage.evidence.Evidence`) for plain steps, and for AdamW's."""

_RIDGE = 1e-3
"""Of the mean energy of a direction: public text is short, and shows some directions too little."""

_PASSAGES, _LENGTH, _AT_ONCE = 48, 64, 6
"""Public passages that inputs are looked at in, their most tokens, and how many go through the model at once."""

_CONTEXT, _ATOMS_AT_ONCE = 16, 1024


@dataclass(frozen=True, kw_only=True)
class KnownLayers:
    """The adapted layers of a model, grouped by the input that they share.

    Attributes
    ----------
    inputs : LayerInputs
        Computes what they get.
    noise : float
        0 for plain gradients and steps along them, :data:`fedpriv.leakage.tokens.ADAPTIVE_NOISE` for AdamW's updates.
    """

    inputs: LayerInputs = field(repr=False)
    noise: float
    _context: tuple[int, ...] = field(repr=False)
    _moments: tuple[Float64, ...] = field(repr=False)
    _whiteners: dict[int, Float32] = field(repr=False, default_factory=dict)
    _typical: dict[int, Float32] = field(repr=False, default_factory=dict)
    _elsewhere: dict[int, dict[int, Float32]] = field(repr=False, default_factory=dict)

    def evidence(self, view: View) -> dict[int, Evidence]:
        """Return the evidence of each group of layers of which a view shows anything but zeros.

        Parameters
        ----------
        view : View
            What a party holds. Only tensors that it sees in full count, if there are any.

        Raises
        ------
        InputError
            If a value that is visible is not finite.
        """
        found: dict[int, Evidence] = {}
        factors = first_factors(view)
        for number, names in enumerate(self.inputs.groups):
            seen = [factors[name] for name in names if name in factors]
            if not all(np.isfinite(tensor).all() for tensor in seen):
                raise InputError("The view holds values that are not finite", todo="look at how this update was made")
            rows = [tensor / size for tensor in seen if (size := float(np.linalg.norm(tensor)))]
            if rows:
                # AdamW divided each coordinate by about its size: that is undone as far as the size is known
                sizes = np.sqrt(np.diag(self._moments[number])) if self.noise else 1.0
                white = (np.concatenate(rows) * sizes) @ self._whitener(number)
                found[number] = Evidence.of(white, _NOISY if self.noise else _EXACT)
        return found

    def whitened(self, tree: Tree, groups: Sequence[int]) -> dict[int, Float64]:
        """Return the whitened inputs of groups (rising numbers) for every node of a tree: (nodes, width) each."""
        found = self.inputs.of(tree, groups)
        return {
            group: (values @ self._whitener(group)).astype(np.float64)
            for group, values in zip(groups, found, strict=True)
        }

    def typical(self, groups: Sequence[int]) -> dict[int, Float32]:
        """Return what groups get for each token after some public text, whitened, of length 1: (vocabulary, width).

        Computed once, in some seconds, and kept.
        """
        if missing := sorted(set(groups) - set(self._typical)):
            parts: dict[int, list[Float32]] = {group: [] for group in missing}
            for start in range(0, self.inputs.vocabulary, _ATOMS_AT_ONCE):
                tree = Tree()
                before = tree.add_text(self._context)[-1]
                tokens = range(start, min(start + _ATOMS_AT_ONCE, self.inputs.vocabulary))
                nodes = [tree.add(token, before) for token in tokens]
                for group, values in zip(missing, self.inputs.of(tree, missing), strict=True):
                    white = values[nodes] @ self._whitener(group)
                    parts[group].append(white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-30))
            self._typical.update({group: np.concatenate(found) for group, found in parts.items()})
        return {group: self._typical[group] for group in groups}

    def elsewhere(self, tokens: Sequence[int], groups: Sequence[int]) -> dict[int, Float64]:
        """Return what groups get for these tokens after some public text, whitened: (tokens, width) each.

        Computed for a token when it is asked for first, and kept.
        """
        if missing := sorted(set(tokens) - set(self._elsewhere)):
            tree = Tree()
            before = tree.add_text(self._context)[-1]
            nodes = [tree.add(token, before) for token in missing]
            found = self.whitened(tree, range(len(self.inputs.groups)))
            for token, node in zip(missing, nodes, strict=True):
                self._elsewhere[token] = {group: rows[node].astype(np.float32) for group, rows in found.items()}
        return {
            group: np.array([self._elsewhere[token][group] for token in tokens], dtype=np.float64) for group in groups
        }

    def _whitener(self, group: int) -> Float32:
        if group not in self._whiteners:
            moment = self._moments[group]
            moment = moment + _RIDGE * float(np.trace(moment)) / len(moment) * np.eye(len(moment))
            found = inverse_root(moment, noise=self.noise)
            self._whiteners[group] = found.astype(np.float32)
        return self._whiteners[group]


def known_layers(
    model_folder: Path, lora: LoraChoice, adapter: AdapterState, public: Sequence[Example], *, noise: float = 0.0
) -> KnownLayers:
    """Look at public text with the model; takes seconds, and depends on nothing private.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    adapter : dict of ndarray of float32
        Where the round began.
    public : sequence of Example
        Texts of the same kind that anybody may have, such as made-up notes.
    noise : float
        See :class:`KnownLayers`.

    Raises
    ------
    InputError
        If no public text has more than 16 tokens.
    ModelError
        If the model cannot be loaded.
    """
    usable = [example.ids for example in public if len(example) > _CONTEXT]
    if not usable:
        raise InputError(f"No public text has more than {_CONTEXT} tokens", todo="give longer ones")
    inputs = LayerInputs(model_folder, lora, adapter)
    passages = _passages(usable)
    groups = range(len(inputs.groups))
    moments: list[Float64] = []
    count = 0
    for first in range(0, _PASSAGES, _AT_ONCE):
        tree = Tree()
        for passage in passages[first : first + _AT_ONCE]:
            tree.add_text(passage)
        products = [values.T.astype(np.float64) @ values.astype(np.float64) for values in inputs.of(tree, groups)]
        moments = [a + b for a, b in zip(moments, products, strict=True)] if moments else products
        count += len(tree.tokens)
    context = passages[0][:_CONTEXT]
    return KnownLayers(inputs=inputs, noise=noise, _context=context, _moments=tuple(m / count for m in moments))


def _passages(texts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    draw = random.Random(0)
    found = []
    for _ in range(_PASSAGES):
        ids = draw.choice(texts)
        start = draw.randrange(len(ids) - _CONTEXT)
        found.append(ids[start : start + _LENGTH])
    return found
