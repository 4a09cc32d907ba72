"""The plan's section on aggregation: how the updates of a round become one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.study.averaging import Averaging, ServerChoice
from fedpriv.study.section import Section


class AggregationChoice(Section):
    """How the updates are weighed in the sum, which tensors they hold, and what their mean does."""

    weights: Literal["fedavg", "uniform"] = Field(
        default="fedavg", description="fedavg: by number of examples (McMahan 2017)"
    )
    averaging: Averaging | None = Field(
        default=None,
        description="which of LoRA's factors a round trains and sends; by default both, with privacy of unit patient "
        "b_only",
    )
    server: ServerChoice = ServerChoice()
