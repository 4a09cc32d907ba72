"""Which tensors of a view an attack on inputs is worth trying on."""

from __future__ import annotations

from collections.abc import Mapping

from fedpriv.leakage.pursuit import Float64
from fedpriv.leakage.views import View

_IN_FULL = ("plain", "sum", "opened")


def first_factors(view: View) -> Mapping[str, Float64]:
    """Return the tensors ``lora_A`` that the party sees in full; or all that it has, where it sees none in full.

    What stands under masks or encryption would only be noise beside what does not. Where there is nothing else it is
    attacked all the same: were the protection missing, the attack would find it.
    """
    factors = {name: tensor for name, tensor in view.tensors.items() if name.endswith(".lora_A.weight")}
    in_full = {name: tensor for name, tensor in factors.items() if view.levels.get(name, "plain") in _IN_FULL}
    return in_full or factors
