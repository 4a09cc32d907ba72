"""Import everything that a job needs, as concrete classes: transformers loads lazily otherwise. Nothing is computed."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

FOUR_BITS = "--four-bits"
"""The argument of a worker that is to import what :func:`preload` imports with ``four_bits``."""

_PACKS_WEIGHTS = "bitsandbytes"
"""Brings torch's compiler with it; peft imports it wherever it is installed, now and again when it adapts a model."""

_UNUSED = "scipy"
"""transformers imports it wherever it is installed, for models of images. A recipe may import it for itself."""


def preload(*, four_bits: bool = False) -> None:
    """Import it now, so that a fork, or the fence around a job, finds it loaded and no thread pool started.

    Parameters
    ----------
    four_bits : bool
        Also bitsandbytes, for base models of 4-bit weights. Without it, it is as if it were not installed, in this
        process and its forks.
    """
    gc.disable()  # nothing of what is imported is garbage, and looking for it takes a fifth of the time
    try:
        if not four_bits:
            _hide(_PACKS_WEIGHTS)
        hidden = _hide(_UNUSED)
        _import()
        if hidden:
            del sys.modules[_UNUSED]
        gc.freeze()  # else every fork's collector writes to, and so copies, what it shares with its parent
    finally:
        gc.enable()


def _hide(package: str) -> bool:
    """Let a package look as if it were not installed, unless it is loaded already; say whether it does."""
    if package in sys.modules:
        return False
    modules: dict[str, ModuleType | None] = sys.modules  # pyright: ignore[reportAssignmentType]
    modules[package] = None  # Python's own mark of what cannot be imported
    return True


def _import() -> None:
    import peft
    import safetensors.torch
    import tokenizers
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    from fedpriv.training import evaluate, local_round, model

    loaded = (
        peft,
        safetensors.torch,
        tokenizers,
        torch,
        LlamaForCausalLM,
        evaluate,
        local_round,
        model,
        AutoModelForCausalLM,
    )
    del loaded
