"""What a benchmark must reach, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing that must be reached, in words, and whether it was; None where it was not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None
