"""LoRA rounds inside a domain: base models, adapters, the local round, and the worker that runs untrusted recipes.

Names are loaded when they are first used: importing this package, or ``fedpriv.training.adapter``, imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpriv.training.adapter import (
        adapter_digest,
        flatten,
        initial_adapter,
        layout_digest,
        load_metrics,
        load_state,
        lora_layout,
        save_state,
        starting_adapter,
        unflatten,
        write_peft_folder,
    )
    from fedpriv.training.base_model import LocalModel, ensure_model, known_models
    from fedpriv.training.evaluate import evaluate_local
    from fedpriv.training.local_round import LocalContext, LocalOutcome, train_local
    from fedpriv.training.recipe import stock_recipe

_HOMES = {
    "LocalContext": "local_round",
    "LocalModel": "base_model",
    "LocalOutcome": "local_round",
    "adapter_digest": "adapter",
    "layout_digest": "adapter",
    "ensure_model": "base_model",
    "evaluate_local": "evaluate",
    "flatten": "adapter",
    "initial_adapter": "adapter",
    "known_models": "base_model",
    "load_metrics": "adapter",
    "load_state": "adapter",
    "lora_layout": "adapter",
    "save_state": "adapter",
    "starting_adapter": "adapter",
    "stock_recipe": "recipe",
    "train_local": "local_round",
    "unflatten": "adapter",
    "write_peft_folder": "adapter",
}

__all__ = [
    "LocalContext",
    "LocalModel",
    "LocalOutcome",
    "adapter_digest",
    "ensure_model",
    "evaluate_local",
    "flatten",
    "initial_adapter",
    "known_models",
    "layout_digest",
    "load_metrics",
    "load_state",
    "lora_layout",
    "save_state",
    "starting_adapter",
    "stock_recipe",
    "train_local",
    "unflatten",
    "write_peft_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
