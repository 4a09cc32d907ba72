"""``python -m fedpriv.training.find_layers FOLDER``: load a base model once, and write down its linear layers.

In a process of its own, which takes its memory and torch with it. A model whose files do not fill all of its weights,
or that only its own code could load, is refused here: torch would make up what is missing, and every domain other
numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from fedpriv.errors import ModelError
from fedpriv.training.layers import Layer, row_norms, write_layers


def find_layers(folder: Path) -> dict[str, Layer]:
    """Return the linear layers of a model by name, its output layer left out.

    Raises
    ------
    ModelError
        If it is not a causal language model of transformers, or its files lack weights.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, info = loaded
    if lacking := sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]):
        raise ModelError(f"The weights do not fill the model: {lacking[0]} is missing", todo="get its files again")
    found: dict[str, Layer] = {}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | Conv1D) or module is model.get_output_embeddings():
            continue
        weight = cast("torch.Tensor", module.weight).detach()
        rows = (weight.t() if isinstance(module, Conv1D) else weight).float().numpy()
        found[name] = Layer(inputs=rows.shape[1], norms=row_norms(rows))
    return found


def find_layers_in_child(folder: Path) -> None:
    """Write the layers of the model in ``folder`` there, from a process of its own.

    Raises
    ------
    ModelError
        With what was wrong, if the model cannot be used.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-P", "-m", "fedpriv.training.find_layers", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"The base model cannot be used ({last[:300]})", todo="see docs/models.md for what can be")


def main() -> int:
    """Write the layers of the model in the folder named; the last line on standard error says what went wrong."""
    folder = Path(sys.argv[1])
    try:
        write_layers(folder, find_layers(folder))
    except ModelError as error:
        sys.stderr.write(f"\n{error.what}\n")
        return 1
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        sys.stderr.write(f"\n{type(error).__name__}: {str(error).splitlines()[0][:250] if str(error) else ''}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
