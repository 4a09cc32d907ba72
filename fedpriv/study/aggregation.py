"""The plan's section on aggregation: how the updates of a round become one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.study.section import Section


class AggregationChoice(Section):
    """How the updates are weighed in the sum."""

    weights: Literal["fedavg", "uniform"] = Field(
        default="fedavg", description="fedavg: by number of examples (McMahan 2017)"
    )
