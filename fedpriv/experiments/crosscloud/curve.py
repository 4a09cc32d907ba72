"""A study's held-out loss against its wall clock, from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import StudyError


@dataclass(frozen=True)
class Point:
    """Where a study was at one time.

    Attributes
    ----------
    seconds : float
        Since the rounds began, preparation and key included.
    round : int
        Finished rounds.
    loss : float
        Held-out loss of the adapter after that round, over all domains, weighted by tokens.
    """

    seconds: float
    round: int
    loss: float


def curve_of(records: Sequence[dict[str, Any]]) -> tuple[Point, ...]:
    """Return a finished study's points: one before the first round, one at the end of each.

    A round's end is when its sum was there to be opened; its loss is measured by the domains on their way to the next
    round, and after the last one on their way to the end.

    Raises
    ------
    StudyError
        If the history is not of a finished study.
    """
    start = next((record["time_s"] for record in records if record["event"] == "StudyStarted"), None)
    rounds = {record["round"]: record for record in records if record["event"] == "RoundFinished"}
    last = next((record for record in records if record["event"] == "StudyFinished"), None)
    if start is None or last is None or sorted(rounds) != list(range(1, len(rounds) + 1)):
        raise StudyError("The study's history has no end", kept="Nothing was compared")
    losses = [rounds[number]["heldout_loss"] for number in sorted(rounds)] + [last["loss_after"]]
    asked = next(r["time_s"] for r in records if r["event"] == "TicketSent" and r["kind"] == "train")
    times = [asked] + [rounds[number]["time_s"] for number in sorted(rounds)]
    return tuple(
        Point(round(at - start, 3), number, loss) for number, (at, loss) in enumerate(zip(times, losses, strict=True))
    )


def seconds_to(curve: Sequence[Point], loss: float) -> float | None:
    """Return when a curve first was at or below ``loss``, or None if it never was."""
    return next((point.seconds for point in curve if point.loss <= loss), None)
