"""Which layers of a base model get an adapter where a researcher names none."""

from __future__ import annotations

import json
from pathlib import Path

from fedpriv.training.layers import load_layers


def usual_targets(model_folder: Path, *, wished: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``wished`` if the model has all of these layers; else those PEFT takes for its architecture; else all.

    Adapting every linear layer is what QLoRA found best (Dettmers et al. 2023, arXiv 2305.14314, section 4).

    Raises
    ------
    ModelError
        If the model's layers are not known.
    """
    names = {name.split(".")[-1] for name in load_layers(model_folder)}
    if set(wished) <= names:
        return wished
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_PEFT

    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    usual = OF_PEFT.get(str(config.get("model_type")), [])
    if isinstance(usual, list) and usual and set(usual) <= names:
        return tuple(sorted(usual))
    return tuple(sorted(names))
