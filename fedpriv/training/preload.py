"""Import everything that a job needs, as concrete classes: transformers loads lazily otherwise. Nothing is computed."""

from __future__ import annotations


def preload() -> None:
    """Import it now, so that a fork, or the fence around a job, finds it loaded and no thread pool started."""
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
