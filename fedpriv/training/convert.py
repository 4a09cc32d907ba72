"""``python -m fedpriv.training.convert GGUF FOLDER``: GGUF weights to float32 safetensors, once, in its own process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fedpriv.errors import ModelError


def convert(gguf: Path, result: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` (float32) and the tokenizer of a GGUF file into ``result``.

    A tied output layer is not stored twice: loading ties it to the embedding again.

    Raises
    ------
    ModelError
        If the written weights do not load to the same logits.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
    ).eval()
    _report(0.6)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    _report(0.8)
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config["architectures"] = ["LlamaForCausalLM"]
    tied = bool(config["tie_word_embeddings"])
    weights = {
        name: tensor.to(torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_file(weights, result / "model.safetensors", {"format": "pt"})
    (result / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(result)
    _report(0.95)
    _check(model, LlamaForCausalLM.from_pretrained(result, local_files_only=True).eval(), tokenizer)


def _check(model: object, written: object, tokenizer: object) -> None:
    import torch

    inputs = tokenizer("The patient was admitted to the hospital with", return_tensors="pt")  # type: ignore[operator]
    with torch.no_grad():
        same = torch.equal(model(**inputs).logits, written(**inputs).logits)  # type: ignore[operator]
    if not same:
        raise ModelError("The converted weights do not give the same logits", todo="report this")


def _report(fraction: float) -> None:
    sys.stdout.write(f"{fraction}\n")
    sys.stdout.flush()


def main() -> int:
    """Convert the file named on the command line; the last line on standard error says what went wrong."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ModelError, OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        sys.stderr.write(f"\n{type(error).__name__}: {str(error).splitlines()[0][:250] if str(error) else ''}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
