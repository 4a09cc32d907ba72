"""The model ``tiny``: a Llama of 0.2 million random parameters, for tests, trials and demonstrations.

It needs no download, no torch and under a second. Its weights come from named Philox streams, so that its digest is
the same on every machine. It knows nothing, yet its held-out loss clearly falls within a dozen LoRA steps.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np

from fedpriv.training.adapter import Float32, uniform
from fedpriv.training.layers import Layer, row_norms, write_layers

VOCABULARY = 512
WIDTH = 64
INNER = 128
LAYERS = 2
HEADS = 4
END = "<|end|>"

EMBEDDING_SCALE = 0.02
WEIGHT_SCALE = 0.1
"""Standard deviations. Small embeddings under larger layers let a small adapter move the output far."""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dtype": "float32",
    "eos_token_id": 0,
    "head_dim": WIDTH // HEADS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def build_tiny(folder: Path) -> None:
    """Write the model's configuration, weights, layers and tokenizer into the existing ``folder``."""
    from safetensors.numpy import save_file

    weights = tiny_weights()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    linear = {name.removesuffix(".weight"): weight for name, weight in weights.items() if "_proj." in name}
    write_layers(folder, {name: Layer(inputs=w.shape[1], norms=row_norms(w)) for name, w in linear.items()})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _write_tokenizer(folder)


def tiny_weights() -> dict[str, Float32]:
    """Return all parameters: norms one, the rest uniform around zero."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH)}
    norms = ["model.norm.weight"]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {f"{prefix}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (WIDTH, INNER)
        norms += [f"{prefix}.input_layernorm.weight", f"{prefix}.post_attention_layernorm.weight"]
    weights = {name: np.ones(WIDTH, np.float32) for name in norms}
    for name, shape in shapes.items():
        scale = EMBEDDING_SCALE if "embed" in name else WEIGHT_SCALE
        weights[name] = uniform(shape, 3**0.5 * scale, f"tiny/1/{name}")
    return dict(sorted(weights.items()))


def _write_tokenizer(folder: Path) -> None:
    """Train byte-level BPE (Sennrich et al. 2016) on the built-in sentences; any text can be encoded with it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    sentences = resources.files("fedpriv.training").joinpath("tiny_text.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONFIG["max_position_embeddings"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
