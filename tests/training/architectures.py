"""Tiny random models of several architectures, made from their configurations."""

import json
import shutil

import torch
import transformers

COMMON = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.1,
}
WINDOWED = {"head_dim": 16, "sliding_window": 5}

ARCHITECTURES = {
    "llama": ("LlamaConfig", COMMON, ("q_proj", "v_proj")),
    "mistral": ("MistralConfig", COMMON | {"sliding_window": 5}, ("q_proj", "down_proj")),
    "qwen2": ("Qwen2Config", COMMON, ("q_proj", "v_proj")),
    "qwen3": ("Qwen3Config", COMMON | {"head_dim": 16}, ("q_proj", "o_proj")),
    "gemma2": ("Gemma2Config", COMMON | WINDOWED | {"final_logit_softcapping": 2.0}, ("q_proj", "v_proj")),
    "gemma3": ("Gemma3TextConfig", COMMON | WINDOWED, ("q_proj", "v_proj")),
    "phi3": ("Phi3Config", COMMON, ("qkv_proj", "down_proj")),
    "granite": ("GraniteConfig", COMMON | {"logits_scaling": 3.0}, ("q_proj", "v_proj")),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.1},
        ("c_attn", "c_fc"),
    ),
    "bloom": (
        "BloomConfig",
        {"vocab_size": 512, "hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.1},
        ("query_key_value", "dense"),
    ),
    "falcon": ("FalconConfig", COMMON | {"new_decoder_architecture": False}, ("query_key_value", "dense")),
    "gpt_oss": (
        "GptOssConfig",
        COMMON | WINDOWED | {"num_local_experts": 4, "num_experts_per_tok": 2},
        ("q_proj", "v_proj"),
    ),
    "llama4": (
        "Llama4TextConfig",
        COMMON
        | {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 8,
            "intermediate_size_mlp": 96,
        },
        ("q_proj", "v_proj"),
    ),
    "mamba": (
        "MambaConfig",
        {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.1},
        ("in_proj", "x_proj"),
    ),
}

UNPACKED = {"bloom", "falcon", "gpt_oss", "llama4_text", "mamba"}
"""Those that look at a whole row by themselves, so that it can hold one example only."""


def build(name, folder, tokenizer_folder, **settings):
    """Write a model of an architecture, with a tokenizer of 512 tokens, and return what LoRA may target."""
    kind, config, targets = ARCHITECTURES[name]
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**config))
    model.save_pretrained(folder, **settings)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / file, folder / file)
    assert json.loads((folder / "config.json").read_text())["model_type"]
    return targets
