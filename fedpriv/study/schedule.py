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
        without = {
            "patience_s": (self.quorum is None, "without a quorum, when every domain is waited for"),
            "late_updates": (self.is_buffered, "in mode buffered, where no update is late"),
            "local_steps": (self.is_buffered, "in mode buffered, where domains train at their own pace"),
        }
        for name, (has_none, where) in without.items():
            if has_none and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no meaning {where}: leave it out")
        return self

    @property
    def is_buffered(self) -> bool:
        """Whether sums are made of the first updates that are ready."""
        return self.mode == "buffered"

    def in_words(self) -> str:
        """Return who is waited for, for a person."""
        if self.buffer is not None:
            return f"buffered: the first {self.buffer} updates that are ready make a sum"
        if self.quorum is None:
            who = "every domain is waited for"
        else:
            late = {"carry": "are added to the next sum", "drop": "are forgotten"}[self.late_updates]
            who = (
                f"{self.quorum} updates make a round when the other domains show no progress for {self.patience_s} s; "
                f"late ones {late}"
            )
        fewer = "; domains on slow machines and links take fewer steps" if self.local_steps == "balanced" else ""
        return f"synchronous: {who}{fewer}"

    def discount(self, rounds: int) -> float:
        """Return ``(1 + tau)^-a`` for an update that is so many rounds old.

        Source: Nguyen et al. 2022, *Federated Learning with Buffered Asynchronous Aggregation* (arXiv 2106.06639),
        with the polynomial of Xie et al. 2019 (arXiv 1903.03934).
        """
        return float((1 + rounds) ** -self.staleness)
