"""An adapter that has learnt a few notes by heart: where every attack on a released adapter must succeed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example, example_order


def overfitted(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    notes: Sequence[Example],
    *,
    steps: int = 200,
    rate: float = 1e-2,
    batch_size: int = 8,
    seed: int = 0,
) -> AdapterState:
    """Return an adapter after many steps of AdamW on few notes.

    Parameters
    ----------
    model_folder, lora, adapter
        The base model, the plan's section, and where it starts.
    notes : sequence of Example
        What it learns by heart; each of two tokens or more.
    steps, rate, batch_size, seed
        How many steps, the learning rate, notes a step, and of the order of the notes.

    Returns
    -------
    dict of ndarray of float32
        Names and shapes of ``adapter``.

    Raises
    ------
    TrainingError
        If the loss is no longer finite.
    ModelError
        If the model cannot be loaded.
    """
    import torch

    from fedpriv.training.local_round import MAX_GRADIENT_NORM, backward
    from fedpriv.training.model import load_model, put_adapter, take_adapter, train_only

    model = load_model(model_folder, lora)
    put_adapter(model, adapter)
    model.eval()
    trained = list(train_only(model, tuple(adapter)).values())
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    order = example_order(len(notes), seed, 0)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        backward(model, [notes[index] for index in islice(order, batch_size)])
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return take_adapter(model)
