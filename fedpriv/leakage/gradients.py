"""What one client computes, for attacks to work on: the gradient of a batch, and what plain steps along it change.

The product's own local round is :func:`fedpriv.training.train_local`; these are the two that attacks are strongest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example


def gradient_of(model_folder: Path, lora: LoraChoice, adapter: AdapterState, batch: Sequence[Example]) -> AdapterState:
    """Return the gradient of a batch's mean loss of a token with respect to the adapter.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section; dropout is off.
    adapter : dict of ndarray of float32
        Where the gradient is taken. Where all of ``lora_B`` is zero, that of ``lora_A`` is zero, too.
    batch : sequence of Example
        Each of two tokens or more.

    Returns
    -------
    dict of ndarray of float32
        Names and shapes of ``adapter``; nats a token for a unit of the parameter.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    ModelError
        If the model cannot be loaded.
    """
    from fedpriv.training.local_round import backward
    from fedpriv.training.model import adapter_parameters, load_model, put_adapter

    model = load_model(model_folder, lora)
    put_adapter(model, adapter)
    model.eval()
    model.zero_grad(set_to_none=True)
    backward(model, batch)
    found = {
        name: np.zeros(parameter.shape, np.float32)
        if parameter.grad is None
        else parameter.grad.detach().cpu().numpy().astype(np.float32, copy=True)
        for name, parameter in adapter_parameters(model).items()
    }
    model.zero_grad(set_to_none=True)
    return found


def sgd_update(
    model_folder: Path, lora: LoraChoice, adapter: AdapterState, batches: Sequence[Sequence[Example]], *, rate: float
) -> AdapterState:
    """Return the update ``adapter_after - adapter`` of one plain gradient step a batch, with learning rate ``rate``.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    """
    after: AdapterState = dict(adapter)
    for batch in batches:
        gradient = gradient_of(model_folder, lora, after, batch)
        after = {name: (value - np.float32(rate) * gradient[name]).astype(np.float32) for name, value in after.items()}
    return {name: after[name] - value for name, value in adapter.items()}


def read_tokens(batch: Sequence[Example]) -> frozenset[int]:
    """Return the tokens that a gradient can tell: all but each example's last one, which the model never read."""
    return frozenset(token for example in batch for token in example[:-1])
