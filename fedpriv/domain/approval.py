"""What an approval still allows at this moment: its limits, its last day, its hours."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fedpriv.errors import RefusedError, RevokedError
from fedpriv.study import Limits, RequestDecision

_DAY_S = 86_400


def limits_now(decision: RequestDecision, *, now_s: float | None = None) -> Limits:
    """Return the limits of an approval that holds at this moment.

    Parameters
    ----------
    decision : RequestDecision
        The data owner's newest word; read it from disk each time, so that a withdrawal counts at the next look.
    now_s : float, optional
        Seconds since the epoch; by default now.

    Raises
    ------
    RevokedError
        If it was approved and is no more: withdrawn, or its last day is over.
    RefusedError
        If it was never approved.
    """
    now_s = time.time() if now_s is None else now_s
    if decision.decision == "revoked":
        raise RevokedError(
            f"The data owner withdrew the approval: {decision.reason}",
            kept="Nothing further is run or sent here",
            todo="ask the data owner, or go on without this domain (`fedpriv study exclude`)",
        )
    if decision.limits is None:
        raise RefusedError(
            f"The request is {decision.decision} at this domain: {decision.reason}",
            kept="Nothing was run",
            todo="wait for the data owner's approval",
        )
    expires_s = decision.limits.expires_s
    if expires_s is not None and now_s >= expires_s:
        raise RevokedError(
            f"The approval ended on {_local(expires_s)}",
            kept="Nothing further is run or sent here",
            todo="ask the data owner to approve it for longer",
        )
    return decision.limits


def opens_in(limits: Limits, *, now_s: float | None = None) -> float:
    """Return the seconds until the approved hours begin; 0.0 within them, or where there are none.

    Hours are the domain's local time, its changes between summer and winter included.
    """
    if limits.hours is None:
        return 0.0
    now_s = time.time() if now_s is None else now_s
    start, end = map(_minutes, limits.hours.split("-"))
    local = time.localtime(now_s)
    minute = local.tm_hour * 60 + local.tm_min
    inside = start <= minute < end if start < end else minute >= start or minute < end
    if inside:
        return 0.0
    today = (local.tm_year, local.tm_mon, local.tm_mday)
    begin = time.mktime((*today, start // 60, start % 60, 0, 0, 0, -1))
    return (
        begin - now_s
        if begin > now_s
        else time.mktime((*today[:2], today[2] + 1, start // 60, start % 60, 0, 0, 0, -1)) - now_s
    )


def limits_in_words(limits: Limits) -> Iterator[str]:
    """Yield each limit as a short phrase, for people."""
    yield f"at most {limits.rounds} round{'s' if limits.rounds > 1 else ''}"
    yield f"at least {limits.minimum_cohort} domains in every round and sum"
    yield f"numbers that may leave: {', '.join(limits.metrics)}"
    if limits.epsilon is not None:
        yield f"at most epsilon {limits.epsilon:g} of the privacy budget"
    if limits.seconds is not None:
        yield f"a local round stops after {limits.seconds} seconds, with the work so far"
    if limits.hours is not None:
        yield f"the model is run only between {limits.hours.replace('-', ' and ')} (local time)"
    if limits.expires_s is not None:
        yield f"until {_local(limits.expires_s)}"
    yield "the adapter may be released at the end" if limits.release else "the adapter may not be released yet"


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
