"""In which numbers a base model computes: float32, or bfloat16 where the processor is faster with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpriv.study.plan import Precision

if TYPE_CHECKING:
    import torch

LEAST_WIDTH = 256
"""Narrower models gain nothing: what their steps cost is not the multiplying."""

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""The processor's own words, of Intel and AMD and of 64-bit ARM. Without them bfloat16 is slower than float32."""


def precision_of(choice: Precision, model_folder: Path) -> torch.dtype:
    """Return the type of the base model's weights and activations.

    ``auto`` takes bfloat16 for a model of some width where the device multiplies it in hardware; measured by
    ``fedpriv bench training``. LoRA's parameters, their gradients and Adam's state are float32 always.
    """
    import torch

    if choice == "auto":
        wide = _width(model_folder) >= LEAST_WIDTH
        return torch.bfloat16 if wide and multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if choice == "bfloat16" else torch.float32


def multiplies_bfloat16() -> bool:
    """Say whether this machine has instructions, or a graphics processor, that multiply bfloat16."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in _INSTRUCTIONS)


def _width(model_folder: Path) -> int:
    """Return the model's width from its configuration, 0 where it does not say."""
    try:
        config: Any = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    for name in ("hidden_size", "n_embd", "d_model"):
        width = config.get(name) if isinstance(config, dict) else None
        if isinstance(width, int):
            return width
    return 0
