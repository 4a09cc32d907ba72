"""The plan's section on aggregation: how much each update of a sum counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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

RULES_WITH_LINKS: frozenset[WeightRule] = frozenset({"paper", "paper-reciprocal"})
"""The rules that look at the speed of the domains' links, to the power ``alpha``."""


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

    @model_validator(mode="after")
    def _alpha_has_a_meaning(self) -> AggregationChoice:
        default = type(self).model_fields["alpha"].default
        if self.weights not in RULES_WITH_LINKS and self.alpha != default:
            raise ValueError(f"alpha has no meaning with the weights {self.weights}: leave it out")
        return self

    def in_words(self) -> str:
        """Return how updates are weighed, for a person."""
        alpha = f" {self.alpha:g}" if self.weights in RULES_WITH_LINKS else ""
        return f"{WEIGHTS_IN_WORDS[self.weights]}{alpha}; no domain counts for over {self.largest_share:.0%} of a sum"
