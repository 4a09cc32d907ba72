"""In which numbers a base model is kept and computes: float32, bfloat16 where it is faster, or weights of 4 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpriv.errors import ModelError
from fedpriv.study.plan import Precision
from fedpriv.training.device import training_device

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

LEAST_WIDTH = 256
"""Narrower models gain nothing: what their steps cost is not the multiplying."""

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""The processor's own words, of Intel and AMD and of 64-bit ARM. Without them bfloat16 is slower than float32."""


def precision_of(choice: Precision, model_folder: Path) -> torch.dtype:
    """Return the type of the base model's weights and activations.

    ``auto`` takes bfloat16 for a model of some width where the device multiplies it in hardware; measured by
    ``fedpriv bench training``. Weights of ``nf4`` are unpacked to that type when they are needed. LoRA's parameters,
    their gradients and Adam's state are float32 always.
    """
    import torch

    if choice in ("auto", "nf4"):
        wide = _width(model_folder) >= LEAST_WIDTH
        return torch.bfloat16 if wide and multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if choice == "bfloat16" else torch.float32


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return how weights are packed into 4 bits, as QLoRA does (Dettmers et al. 2023, arXiv 2305.14314).

    NormalFloat4 in blocks, the blocks' scales packed once more. The output layer stays as it is.

    Raises
    ------
    ModelError
        If bitsandbytes is not installed.
    """
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "Weights of 4 bits (training > precision: nf4) need bitsandbytes, which is not installed here",
            todo="install fedpriv[quantized], or choose precision: auto in the plan",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def multiplies_bfloat16() -> bool:
    """Say whether the device that trains, the processor or a graphics processor, multiplies bfloat16."""
    import torch

    if training_device().type == "cuda":
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
