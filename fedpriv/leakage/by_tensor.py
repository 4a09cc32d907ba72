"""Which tensors give tokens away by themselves: the token attack with one tensor visible and all others hidden.

The rows of a gradient of ``lora_A`` are mixtures of its layer's inputs ``X``, those of ``lora_B`` of ``X A^T``. In the
first block the inputs are known for every token (:mod:`fedpriv.leakage.first_inputs`). Behind it they depend on the
text before; what a layer gets for a token after a few words of public text comes near enough for a dictionary, if what
it leaves unexplained counts as noise. So on SmolLM2-135M the attack still names most telling tokens from the second
block's ``lora_A``, and a quarter or more from the sixteenth's. (Tokens alone, with nothing before them, do worse from
deep blocks: a model's first position is unlike all others.) Of ``lora_B`` no more tokens than the rank could be told.

The attacker knows the adapter and which tokens occur in notes of this kind: more than a researcher does. Both make the
attack stronger, as befits a map of what should stay hidden.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError
from fedpriv.leakage.evidence import Evidence
from fedpriv.leakage.gradients import gradient_of, read_tokens
from fedpriv.leakage.language import SMOOTHING
from fedpriv.leakage.layered import presence, pursue_layers
from fedpriv.leakage.pursuit import Float64, pursue, whitener
from fedpriv.leakage.rate import LeakageRate, Trial, leakage_rate
from fedpriv.leakage.views import View
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import PREFIX, AdapterState
from fedpriv.training.examples import Example

if TYPE_CHECKING:
    import torch

_A, _B = ".lora_A.weight", ".lora_B.weight"
_AT_ONCE = 256

CONTEXT_TOKENS = 6
"""Of public text that stand before each candidate."""

DEEPER_NOISE = 3.0
"""Energy in the rows, as a part of the atoms', that the atoms of deeper blocks do not explain; from 0.3 to 3 it makes
little difference."""


_SOFTNESS = 0.1
"""Of the evidence, see :class:`fedpriv.leakage.evidence.Evidence`: the small directions of the rows are noise."""


@dataclass(frozen=True, kw_only=True)
class TensorDictionary:
    """What the rows of some tensors are mixtures of.

    Attributes
    ----------
    tensors : tuple of str
        Whose layers have these inputs.
    noise : float
        Energy in the rows that the atoms do not explain, as a part of theirs; 0 where they are exact.
    frequency : ndarray of float64, (candidates,)
        How often each token occurs in public text.
    whitener : ndarray of float64, (width, width)
        For rows and atoms, from the right.
    whitened : ndarray of float64, (candidates, width)
        The atoms.
    """

    tensors: tuple[str, ...]
    noise: float
    frequency: Float64 = field(repr=False)
    whitener: Float64 = field(repr=False)
    whitened: Float64 = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TensorDictionaries:
    """What an attacker knows of every layer's inputs.

    Attributes
    ----------
    candidates : ndarray of int, (count,)
        The tokens that may occur.
    frequency : ndarray of float64, (count,)
        How often each of them occurs in public text; sums to 1.
    inputs : dict of ndarray of float64, (count, width)
        For each adapted layer, in the order in which the model reaches them, what it gets for each token after a few
        words of public text.
    adapter : dict of ndarray of float32
        The adapter that the model has.
    """

    candidates: NDArray[np.intp]
    frequency: Float64 = field(repr=False)
    inputs: Mapping[str, Float64] = field(repr=False)
    adapter: AdapterState = field(repr=False)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that there is an attack on: both factors of every layer."""
        return tuple(sorted(f"{layer}{factor}" for layer in self.inputs for factor in (_A, _B)))

    @property
    def first(self) -> tuple[str, ...]:
        """The tensors ``lora_A`` that get the first layer's very input, which is exact."""
        (atoms, *_) = self.inputs.values()
        return tuple(f"{layer}{_A}" for layer, other in self.inputs.items() if np.array_equal(atoms, other))

    def of(self, *tensors: str, noise: float | None = None) -> TensorDictionary:
        """Return the dictionary of some tensors with the same inputs, whose tokens count as in ``candidates``.

        Parameters
        ----------
        noise : float, optional
            What the atoms do not explain, see :class:`TensorDictionary`; by default nothing in the
            first layers, and :data:`DEEPER_NOISE` behind them.

        Raises
        ------
        InputError
            If there is no attack on such a tensor.
        """
        name = tensors[0]
        layer = name.removesuffix(_A).removesuffix(_B)
        if layer not in self.inputs or name == layer:
            raise InputError(
                f"There is no attack on the tensor {name}", todo="name a lora_A or a lora_B of the adapter"
            )
        atoms = self.inputs[layer]
        if name.endswith(_B):
            atoms = atoms @ self.adapter[f"{layer}{_A}"].T.astype(np.float64)
        if noise is None:
            noise = 0.0 if name in self.first else DEEPER_NOISE
        white = whitener(atoms, self.frequency, noise=noise)
        return TensorDictionary(
            tensors=tensors,
            noise=noise,
            frequency=self.frequency,
            whitener=white,
            whitened=atoms @ white,
        )

    def recover(self, view: View, dictionary: TensorDictionary, count: int) -> tuple[int, ...]:
        """Guess ``count`` distinct tokens with a dictionary of :meth:`of`, the likeliest first.

        What the pursuit does not name is filled up with the most frequent tokens.

        Raises
        ------
        InputError
            If a value that is visible is not finite.
        """
        seen = [view.tensors[name] for name in dictionary.tensors if name in view.tensors]
        if not all(np.isfinite(tensor).all() for tensor in seen):
            raise InputError("The view holds values that are not finite", todo="look at how this update was made")
        rows = [tensor / size for tensor in seen if (size := float(np.linalg.norm(tensor)))]
        found: list[int] = []
        if rows:
            white = np.concatenate(rows) @ dictionary.whitener
            found = _pursue(dictionary, white, count)
        usual = np.argsort(-dictionary.frequency, kind="stable").tolist()
        return tuple(int(self.candidates[place]) for place in list(dict.fromkeys([*found, *usual]))[:count])


def _pursue(dictionary: TensorDictionary, rows: Float64, count: int) -> list[int]:
    """Name the atoms that rows are mixtures of, up to ``count``."""
    if not dictionary.noise:
        return pursue(dictionary.whitened, rows, count)
    lengths = np.maximum(np.linalg.norm(dictionary.whitened, axis=1, keepdims=True), 1e-30)
    atoms = {0: (dictionary.whitened / lengths).astype(np.float32)}
    return pursue_layers(atoms, {0: Evidence.of(rows, _SOFTNESS)}, count, presence(dictionary.frequency, count))


def tensor_dictionaries(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    *,
    public: Sequence[Example],
    candidates: Sequence[int],
) -> TensorDictionaries:
    """Run every candidate through the model after a few public tokens, and keep what each adapted layer gets of it.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    adapter : dict of ndarray of float32
        The adapter at the beginning of the round.
    public : sequence of Example
        Texts of the same kind that anybody may have; the first of them is what stands before.
    candidates : sequence of int
        The tokens that may occur, at least one.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    """
    from fedpriv.training.model import load_model, put_adapter

    kept = np.unique(np.array(candidates, np.intp))
    counts = Counter(token for example in public for token in example)
    frequency = np.array([counts[int(token)] + SMOOTHING for token in kept])
    model = load_model(model_folder, lora)
    put_adapter(model, adapter)
    model.eval()
    before = public[0][:CONTEXT_TOKENS] if public else ()
    parts = [_inputs(model, before, kept[start : start + _AT_ONCE]) for start in range(0, len(kept), _AT_ONCE)]
    return TensorDictionaries(
        candidates=kept,
        frequency=frequency / frequency.sum(),
        inputs={layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]},
        adapter=adapter,
    )


def leakage_by_tensor(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    *,
    passages: Sequence[Example],
    public: Sequence[Example],
    common: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, LeakageRate]:
    """Return the leakage rate of each tensor that the attack gets alone, from plain gradients of single passages.

    A gradient is the attacker's best case: what leaves after several steps of AdamW tells less, in every tensor. In the
    same run the attack must succeed on the first layers' ``lora_A`` together; else nothing counts as measured.

    Parameters
    ----------
    passages : sequence of Example
        What is attacked: made-up or public texts, of about as many tokens as half the model's width at the most.
    public : sequence of Example
        Other texts of the same kind.
    common : int
        So many of the most frequent tokens of ``public`` do not count.
    report : Callable[[int, int], None]
        Called with the tensors that are done, and their number.

    Raises
    ------
    InputError
        If there are fewer than two passages, or none has a token that counts.
    ModelError, TrainingError
        If the model cannot be loaded, or a loss is not finite.
    """
    if len(passages) < 2:
        raise InputError("One passage alone has no other to be compared with", todo="give more passages")
    tokens = {token for text in (*passages, *public) for token in text}
    known = tensor_dictionaries(model_folder, lora, adapter, public=public, candidates=sorted(tokens))
    usual = frozenset(int(known.candidates[place]) for place in np.argsort(-known.frequency, kind="stable")[:common])
    secrets = [read_tokens([passage]) for passage in passages]
    views = [_view(gradient_of(model_folder, lora, adapter, [passage])) for passage in passages]

    def trials(dictionary: TensorDictionary) -> list[Trial]:
        named = []
        for place, secret in enumerate(secrets):
            mine, other = views[place], views[(place + 1) % len(views)]
            guesses, others = (known.recover(view, dictionary, len(secret)) for view in (mine, other))
            named.append(Trial(secret=secret, guesses=guesses, others=others))
        return named

    control = trials(known.of(*known.first))
    rates: dict[str, LeakageRate] = {}
    for number, tensor in enumerate(known.tensors, 1):
        rates[tensor] = leakage_rate(trials(known.of(tensor)), control=control, common=usual)
        report(number, len(known.tensors))
    return rates


def _view(gradient: AdapterState) -> View:
    tensors = {name: value.astype(np.float64) for name, value in gradient.items()}
    return View(party="who sees one tensor", levels=dict.fromkeys(gradient, "plain"), tensors=tensors)


def _inputs(model: Any, before: Sequence[int], tokens: NDArray[np.intp]) -> dict[str, Float64]:
    """Return what each adapted layer gets of each token after the same text: (tokens, width)."""
    import torch
    from peft.tuners.lora import LoraLayer

    found: dict[str, Float64] = {}

    def keep(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            found[name] = arguments[0][:, -1].double().cpu().numpy()

        return hook

    layers: list[tuple[str, Any]] = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    handles = [
        module.register_forward_pre_hook(keep(f"{PREFIX}{name.removeprefix(PREFIX)}")) for name, module in layers
    ]
    try:
        with torch.no_grad():
            rows = [[*before, int(token)] for token in tokens]
            model(input_ids=torch.tensor(rows, device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    return found
