"""The plan's section on the schedule: who is waited for in a round, how long, and what comes of those who are late."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedpriv.study.section import Section


class ScheduleChoice(Section):
    """How rounds follow each other."""

    mode: Literal["synchronous", "buffered"] = Field(
        default="synchronous",
        description="synchronous: a round sums the updates of all; buffered: of the first that are ready (FedBuff)",
    )
    quorum: int | None = Field(
        default=None,
        ge=2,
        le=256,
        description="so many updates make a round when others are late; none: every domain is waited for",
    )
    patience_s: int = Field(
        default=600,
        ge=1,
        le=86_400,
        description="with a quorum, a domain that shows no progress for so many seconds is late",
    )
    late_updates: Literal["carry", "drop"] = Field(
        default="carry",
        description="what a domain does with an update that missed its round: adds it to its next one, or forgets it",
    )
    local_steps: Literal["same", "balanced"] = Field(
        default="same",
        description="balanced: domains on slow machines and links take fewer steps, so that all are ready together",
    )
    buffer: int | None = Field(
        default=None, ge=2, le=256, description="updates that make a sum (buffered); needed there and only there"
    )
    staleness: float = Field(
        default=0.5,
        ge=0,
        le=4,
        description="a in (1 + tau)^-a, the discount of an update that is tau rounds old (buffered, or carried)",
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> ScheduleChoice:
        if (self.mode == "buffered") != (self.buffer is not None):
            raise ValueError("buffer belongs to mode buffered, which needs it, and to no other")
        if self.mode == "buffered" and self.quorum is not None:
            raise ValueError("quorum has no meaning in mode buffered: buffer says how many updates make a sum")
        return self

    @property
    def is_buffered(self) -> bool:
        """Whether sums are made of the first updates that are ready."""
        return self.mode == "buffered"

    def discount(self, rounds: int) -> float:
        """Return ``(1 + tau)^-a`` for an update that is so many rounds old.

        Source: Nguyen et al. 2022, *Federated Learning with Buffered Asynchronous Aggregation* (arXiv 2106.06639),
        with the polynomial of Xie et al. 2019 (arXiv 1903.03934).
        """
        return float((1 + rounds) ** -self.staleness)
