"""What a party chooses of its own link, in ``domain.yaml`` and ``researcher.yaml``."""

from __future__ import annotations

from pydantic import Field

from fedpriv.study.section import Section


class TransportChoice(Section):
    """How this party uses its line to the store."""

    upload_limit_mbit: float | None = Field(
        default=None,
        ge=0.1,
        le=100_000,
        description="most that updates and sums take of the line when they are sent, megabits a second; none: no limit",
    )
