"""What is seen in full is attacked, and what is not only where there is nothing else."""

import numpy as np

from fedpriv.leakage import View
from fedpriv.leakage.factors import first_factors

TENSORS = {f"{layer}.lora_{part}.weight": np.ones((2, 2)) for layer in "xy" for part in "AB"}


def names(**levels):
    by_name = {
        f"{name}.weight".replace("_A", ".lora_A").replace("_B", ".lora_B"): level for name, level in levels.items()
    }
    return sorted(first_factors(View(party="x", levels=by_name, tensors=TENSORS)))


def test_noise_is_left_out_beside_what_is_in_full():
    for level in ("plain", "sum", "opened"):
        assert names(x_A="sealed", y_A=level, x_B="plain") == ["y.lora_A.weight"]


def test_where_no_first_factor_is_in_full_all_are_tried():
    both = ["x.lora_A.weight", "y.lora_A.weight"]
    assert names(x_A="sealed", y_A="masked", x_B="plain") == both
    assert names() == both
