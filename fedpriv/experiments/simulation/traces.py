"""Traces: how fast each simulated domain and its link are, and when it is away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError, model_validator

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section
from fedpriv.study.validation import in_words


class Trace(Section):
    """One domain in a simulation.

    ``examples``   training examples
    ``step_s``     seconds an optimiser step
    ``up_mbps``, ``down_mbps``, ``latency_s``  its link to the store; a message takes one latency
    ``away``       spans of virtual seconds in which nothing of it moves
    ``approves_s`` virtual second at which its data owner has approved the request
    """

    examples: int = Field(default=100, ge=1)
    step_s: float = Field(default=1.0, gt=0)
    up_mbps: float = Field(default=100.0, gt=0)
    down_mbps: float = Field(default=100.0, gt=0)
    latency_s: float = Field(default=0.05, ge=0)
    away: tuple[tuple[float, float], ...] = ()
    approves_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _spans_in_order(self) -> Trace:
        ends = [time for span in self.away for time in span]
        if ends != sorted(ends):
            raise ValueError("the spans of away are not in order, each from its beginning to its end")
        return self

    def back_at(self, now: float) -> float:
        """Return when the domain moves again: now, or the end of the span in which it is away."""
        return next((end for start, end in self.away if start <= now < end), now)

    def moved_by(self, now: float, seconds: float) -> float:
        """Return when work that takes so many seconds of presence is done, if it begins now."""
        begun = self.back_at(now)
        done = begun + seconds
        for start, end in self.away:
            if begun <= start < done:
                done += end - start
        return done


def spread_traces(number: int, seed: int) -> list[Trace]:
    """Return traces of unequal domains: sizes, speeds and links are log-normal.

    Examples and steps have a standard deviation of a factor 2 around 200 and 1 s; links of a factor 3 around 30 Mbit/s
    up, three times that down, with 20 ms.
    """
    rng = np.random.default_rng(seed)
    draws = rng.lognormal(sigma=np.log([2.0, 2.0, 3.0, 2.0]), size=(number, 4))
    return [
        Trace(
            examples=max(8, round(200 * examples)),
            step_s=round(1.0 * float(step), 4),
            up_mbps=round(30 * float(rate), 3),
            down_mbps=round(90 * float(rate), 3),
            latency_s=round(0.02 * float(latency), 4),
        )
        for examples, step, rate, latency in draws
    ]


def read_traces(path: Path) -> list[Trace]:
    """Read traces from a file with one JSON object a line.

    Raises
    ------
    ConfigError
        Naming the first line that is none.
    """
    traces = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            traces.append(Trace.model_validate_json(line))
        except (ValidationError, ValueError) as error:
            words = in_words(error) if isinstance(error, ValidationError) else str(error)
            raise ConfigError(f"{path.name}, line {number}: {words}", todo="see Trace for its fields") from error
    return traces
