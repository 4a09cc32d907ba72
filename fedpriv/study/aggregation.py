"""The plan's section on aggregation: how much each update of a sum counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.study.averaging import Averaging, ServerChoice
from fedpriv.study.section import Section

WeightRule = Literal["fedavg", "uniform", "paper", "paper-reciprocal", "inverse-loss", "custom"]
"""How an update's weight comes about; :mod:`fedpriv.aggregation.weights` has the formulas."""

WEIGHTS_IN_WORDS: dict[WeightRule, str] = {
    "fedavg": "by number of examples",
    "uniform": "every domain the same",
    "paper": "by mean loss, over the speed of the domain's link to the power alpha",
    "paper-reciprocal": "by mean loss, times the speed of the domain's link to the power alpha",
    "inverse-loss": "by one over the mean loss",
    "custom": "by a function of the researcher's own",
}

RULES_WITH_LOSSES: frozenset[WeightRule] = frozenset({"paper", "paper-reciprocal", "inverse-loss", "custom"})
"""The rules that need the losses of the round itself: its updates are weighed and sealed after all have trained."""


class AggregationChoice(Section):
    """How the updates are weighed in the sum, which tensors they hold, and what their mean does."""

    weights: WeightRule = Field(default="fedavg", description="fedavg: by number of examples (McMahan 2017)")
    alpha: float = Field(
        default=0.5, ge=0, le=4, description="exponent of the link's speed (weights paper and paper-reciprocal)"
    )
    largest_share: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="no domain counts for a larger share of a sum: what is over it goes to the others",
    )
    averaging: Averaging | None = Field(
        default=None,
        description="which of LoRA's factors a round trains and sends; by default both, with privacy of unit patient "
        "b_only",
    )
    server: ServerChoice = ServerChoice()
