"""DoRA's magnitudes in a loaded model: the same as PEFT's, without making every layer's whole update at every step.

Liu et al. 2024 (arXiv 2402.09353): a layer's weights become ``m (W + s B A) / ||W + s B A||``, row by row, the norm
taken as a constant in the backward pass (their section 4.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora.dora import DoraLinearLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import transpose
from torch.nn import functional

from fedpriv.training.adapter import MAGNITUDE, PREFIX
from fedpriv.training.device import training_device
from fedpriv.training.layers import Layer


class RowNorms(DoraLinearLayer):
    """A layer's magnitudes, with the norms of the rows of its frozen weights known beforehand.

    *Guarantee*: while ``B`` is zero and the magnitudes are ``norms``, the layer computes to the bit what it does
    without an adapter, in whatever precision its weights are kept: ``norms`` are those of the weights as published.
    """

    norms: torch.Tensor

    def __init__(self, magnitudes: torch.nn.Parameter, norms: torch.Tensor, fan_in_fan_out: bool) -> None:
        super().__init__(fan_in_fan_out)
        self.weight = magnitudes
        self.register_buffer("norms", norms, persistent=False)

    @torch.no_grad()
    def moved_norms(
        self, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Return ``||W + s B A||`` of each row: ``sqrt(||W||^2 + 2 s <W, B A> + s^2 ||B A||^2)``.

        With ``W A^T`` and ``A A^T``, of rank's size, the rows of ``B A`` need not be there.

        Parameters
        ----------
        weight : Tensor, (outputs, inputs)
        lora_a, lora_b : Tensor of float32, (rank, inputs) and (outputs, rank)

        Returns
        -------
        Tensor of float32, (outputs,)
        """
        along = (weight @ lora_a.to(weight.dtype).t()).float()
        cross = (along * lora_b).sum(1)
        square = ((lora_b @ (lora_a @ lora_a.t())) * lora_b).sum(1)
        return (self.norms.square() + 2 * scaling * cross + scaling**2 * square).clamp_min(0).sqrt()

    def forward(
        self,
        x: torch.Tensor,
        *,
        lora_A: torch.nn.Linear,
        lora_B: torch.nn.Linear,
        scaling: float,
        base_layer: Any,
        base_result: torch.Tensor | None = None,
        adapter_name: str = "default",
    ) -> torch.Tensor:
        """Return what the adapter adds to the layer's output; ``base_result`` is the layer's own, without dropout."""
        del adapter_name  # PEFT's cache is by its name
        weight = transpose(dequantize_module_weight(base_layer), self.fan_in_fan_out)
        with torch.autocast(x.device.type, enabled=False):
            ratio = self.weight / self.moved_norms(weight, lora_A.weight, lora_B.weight, scaling)
        added = lora_B(lora_A(x))
        if base_result is None:
            own = functional.linear(x, weight.to(x.dtype))
        else:
            own = base_result if base_layer.bias is None else base_result - base_layer.bias
        return (ratio - 1).to(added.dtype) * own + (ratio * scaling).to(added.dtype) * added


def know_norms(model: PeftModel, layers: Mapping[str, Layer]) -> None:
    """Put :class:`RowNorms` in the place of PEFT's magnitudes, at every layer that has them."""
    for name, module in model.named_modules():
        held = cast("Any", getattr(module, MAGNITUDE[1:], None))
        if held is None or "default" not in held:
            continue
        norms = torch.from_numpy(layers[name.removeprefix(PREFIX)].norms.copy()).to(training_device())
        magnitudes = torch.nn.Parameter(norms.clone())
        held["default"] = RowNorms(magnitudes, norms, held["default"].fan_in_fan_out)
