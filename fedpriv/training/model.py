"""The base model with its LoRA adapter in memory, and its loss without a copy of the logits."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from fedpriv.errors import ModelError, TrainingError
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState, Float32
from fedpriv.training.examples import IGNORED

ROWS_AT_ONCE = 512
"""Positions whose logits are in memory at a time: 512 x 49152 float32 are 96 MiB."""


def load_model(folder: Path, lora: LoraChoice) -> PeftModel:
    """Return the frozen base model in float32 with a LoRA adapter on it; the same object for the same arguments.

    All of the adapter can be trained, whatever was frozen before (:func:`train_only`).

    float32, because bfloat16 is slower on processors without AMX (measured in ``benchmarks/training_step.py``).

    Raises
    ------
    ModelError
        If the folder holds no usable Llama weights.
    """
    model = _load(folder, lora.model_dump_json())
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    return model


@functools.lru_cache(maxsize=1)
def _load(folder: Path, lora_json: str) -> PeftModel:
    lora = LoraChoice.model_validate_json(lora_json)
    try:
        base = LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The base model in {folder.name} cannot be loaded", todo="fetch the model again") from error
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return cast("PeftModel", get_peft_model(base, config))


def adapter_parameters(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return the LoRA parameters by the names of an adapter state, sorted."""
    found = {
        name.replace(".default.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A.default." in name or ".lora_B.default." in name
    }
    return dict(sorted(found.items()))


def train_only(model: PeftModel, names: Collection[str]) -> dict[str, torch.nn.Parameter]:
    """Freeze all of the adapter but the parameters of these names, and return those.

    Raises
    ------
    TrainingError
        If the adapter does not have one of them, or there is none.
    """
    parameters = adapter_parameters(model)
    if not names or not set(names) <= set(parameters):
        raise TrainingError("The parameters to train are not those of the adapter", todo="train context.trained")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
        parameter.grad = None
    return {name: parameter for name, parameter in parameters.items() if name in names}


def put_adapter(model: PeftModel, state: Mapping[str, Float32]) -> None:
    """Copy an adapter state into the model.

    Raises
    ------
    TrainingError
        If names or shapes are not those of the model's adapter.
    """
    parameters = adapter_parameters(model)
    if {name: tuple(p.shape) for name, p in parameters.items()} != {name: a.shape for name, a in state.items()}:
        raise TrainingError("The adapter does not fit the base model and the plan's LoRA settings")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(state[name], np.float32)))


def take_adapter(model: PeftModel) -> AdapterState:
    """Return a copy of the model's adapter as an adapter state."""
    return {name: p.detach().numpy().astype(np.float32, copy=True) for name, p in adapter_parameters(model).items()}


def next_token_loss(model: PeftModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of all next tokens of a batch, in nats.

    Parameters
    ----------
    model : PeftModel
        From :func:`load_model`.
    tokens, labels : Tensor of int64, (batch, length)
        From :func:`fedpriv.training.examples.collate`.

    Returns
    -------
    Tensor of float32, ()
        Differentiable with respect to the LoRA parameters.
    """
    causal = cast("LlamaForCausalLM", model.get_base_model())
    hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
    wanted = labels != IGNORED
    loss: Any = _FrozenHeadLoss.apply(hidden[wanted], causal.lm_head.weight, labels[wanted])
    return loss


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy behind a frozen output layer, its gradient found in the forward pass.

    The logits of a vocabulary of 49152 are what a training step on a processor has most of. Since the layer's weight
    needs no gradient, ``(softmax - onehot) @ weight`` follows from the logits while they are in memory: a chunk of
    rows at a time, written over in place, never kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the losses; ``hidden`` (rows, width) float32, ``weight`` (vocabulary, width), ``labels`` (rows)."""
        wants_gradient = ctx.needs_input_grad[0]
        total = torch.zeros((), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if wants_gradient else None
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            logits = hidden[rows] @ weight.t()
            normaliser = torch.logsumexp(logits, dim=1)
            target = labels[rows].unsqueeze(1)
            total += (normaliser - logits.gather(1, target).squeeze(1)).sum()
            if gradient is not None:
                logits.sub_(normaliser.unsqueeze(1)).exp_()
                logits.scatter_add_(1, target, torch.full(target.shape, -1.0))
                gradient[rows] = logits @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Scale the gradient found in the forward pass."""
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None
