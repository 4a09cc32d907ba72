"""The base model with its LoRA adapter in memory, and the loss of a batch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from fedpriv.errors import ModelError, TrainingError
from fedpriv.study.plan import LoraChoice, Precision
from fedpriv.training.adapter import MAGNITUDE, AdapterState, Float32
from fedpriv.training.device import training_device
from fedpriv.training.dora import know_norms
from fedpriv.training.examples import collate
from fedpriv.training.layers import load_layers
from fedpriv.training.loss import summed_loss
from fedpriv.training.packing import ATTENTION, UnknownAttentionError, pack, segments
from fedpriv.training.precision import four_bits, precision_of
from fedpriv.training.traits import traits_of


def load_model(folder: Path, lora: LoraChoice, precision: Precision = "float32") -> PeftModel:
    """Return the frozen base model with a LoRA adapter on it; the same object for the same arguments.

    All of the adapter can be trained, whatever was frozen before (:func:`train_only`). Its parameters are float32,
    whatever the base model's are (:mod:`fedpriv.training.precision`).

    Raises
    ------
    ModelError
        If the folder holds no usable causal language model. Code that comes with a model is never run.
    """
    model = _load(folder, lora.model_dump_json(), precision_of(precision, folder), precision == "nf4")
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    return model


@functools.lru_cache(maxsize=1)
def _load(folder: Path, lora_json: str, dtype: torch.dtype, packed: bool) -> PeftModel:
    lora = LoraChoice.model_validate_json(lora_json)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        use_dora=lora.use_dora,
        use_rslora=lora.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    base = _load_base(folder, dtype, packed)
    try:
        model = cast("PeftModel", get_peft_model(base, config))
    except ValueError as error:
        raise ModelError(
            f"PEFT does not adapt the layers {', '.join(lora.targets)} of this base model together",
            todo="choose lora > targets from those that `fedpriv model list` shows",
        ) from error
    if lora.use_dora:
        know_norms(model, load_layers(folder))
    for module in model.modules():
        if dtype != torch.float32 and isinstance(module, BaseTunerLayer):
            cast("Any", module).cast_input_dtype_enabled = False  # else it copies activations
    return model


def _load_base(folder: Path, dtype: torch.dtype, packed: bool) -> PreTrainedModel:
    """Load the weights with our own attention where the architecture lets it be chosen, else with its own.

    An architecture that does not say that it can would take ours for one that masks what comes later for itself.
    """
    options: Any = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    if training_device().type != "cpu":
        options["device_map"] = {"": training_device()}
    if packed:
        options["quantization_config"] = four_bits(dtype)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        can_choose = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_attention_backend", False)
        in_chunks = getattr(config, "attention_chunk_size", None)  # which only a mask tells, and packed rows have none
        attention = ATTENTION if can_choose and not in_chunks else "eager"
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The base model in {folder.name} cannot be loaded", todo="fetch the model again") from error
    model.requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes packs weights another way when they are first evaluated, as is done right below, and no
            # gradient gets past them any more, without an error.
            cast("Any", module).support_avx512bf16_for_cpu = False
    try:
        traits_of(model)
    except UnknownAttentionError:
        model.set_attn_implementation("eager")
        traits_of(model)
    return model


def adapter_parameters(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return the LoRA parameters by the names of an adapter state, sorted."""
    found = {
        name.replace(f"{MAGNITUDE}.default.weight", MAGNITUDE).replace(".default.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if any(f"{part}.default." in name for part in (".lora_A", ".lora_B", MAGNITUDE))
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
    parameters = adapter_parameters(model)
    return {name: p.detach().cpu().numpy().astype(np.float32, copy=True) for name, p in parameters.items()}


@contextlib.contextmanager
def training_mode(model: PeftModel, *, checkpointing: bool = False) -> Iterator[None]:
    """Train within the block, with dropout if there is any; with ``checkpointing``, keep only each layer's input.

    The layers' other activations are then computed once more in the backward pass, with the same dropout.
    """
    base = base_of(model)
    model.train()
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        if checkpointing:
            base.gradient_checkpointing_disable()
        model.eval()


def next_token_loss(model: PeftModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of all labelled next tokens of a padded batch, in nats.

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
    base = base_of(model)
    return summed_loss(base, tokens.to(base.device), labels.to(base.device))


@contextlib.contextmanager
def batch_loss(model: PeftModel, batch: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    """Give the summed loss of a batch, as :func:`next_token_loss` of it is; go backward within the block.

    The batch is one row without padding where the model can be packed, padded elsewhere.
    """
    base = base_of(model)
    if not traits_of(base).packable:
        yield next_token_loss(model, *collate(batch))
        return
    packed = pack(batch).to(base.device)
    with segments(packed.lengths):
        yield summed_loss(base, packed.tokens, packed.labels, packed.positions)


def base_of(model: PeftModel) -> PreTrainedModel:
    """Return the base model, whose layers have the adapter in them."""
    return cast("PreTrainedModel", model.get_base_model())
