"""The links between the domains and the store: what was measured of them, and what a round makes of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from pydantic import Field

from fedpriv.study.messages import LinkSample
from fedpriv.study.section import Section

SMOOTHING = 0.25
"""What the newest transfer counts in an estimate; the rest is what was known before."""

_SMALLEST_BYTES = 4096
"""Transfers below this tell of the latency alone."""

_MOST_AHEAD = 8.0
"""How many times sooner than the median a domain can be ready, in balanced rounds."""

_LARGEST_RATIO = 1024.0
"""No link counts as more than so many times faster or slower than the median one."""


class Link(Section):
    """What is known of one domain's link; None before it was measured.

    Attributes
    ----------
    up_mbps, down_mbps : float or None
        Megabits a second towards and from the store, beside the latency.
    latency_s : float or None
        What a message of a few bytes takes, in seconds.
    """

    up_mbps: float | None = Field(default=None, gt=0)
    down_mbps: float | None = Field(default=None, gt=0)
    latency_s: float | None = Field(default=None, ge=0)

    def observe(self, sample: LinkSample) -> Link:
        """Return the estimate after one more ticket: exponential smoothing, in the logarithm for the rates.

        Rates spread over orders of magnitude; in the logarithm one odd transfer moves them by a factor in either
        direction alike. The first measurement counts whole.
        """
        latency = _smoothed(self.latency_s, sample.small_put_s or None)
        return Link(
            up_mbps=_rate(self.up_mbps, sample.up_bytes, sample.up_s, sample.small_put_s),
            down_mbps=_rate(self.down_mbps, sample.down_bytes, sample.down_s, sample.small_put_s),
            latency_s=latency,
        )

    def seconds(self, up_bytes: int, down_bytes: int, messages: int = 0) -> float:
        """Return how long it takes to move so many bytes and to exchange so many messages; 0 for what is unknown."""
        up = up_bytes * 8e-6 / self.up_mbps if self.up_mbps else 0.0
        down = down_bytes * 8e-6 / self.down_mbps if self.down_mbps else 0.0
        return up + down + messages * (self.latency_s or 0.0)


def relative_bandwidths(links: Mapping[str, Link]) -> dict[str, float]:
    """Return ``B_k``: each domain's upload rate over the median of those that were measured; 1 where none was."""
    known = [link.up_mbps for link in links.values() if link.up_mbps]
    middle = statistics.median(known) if known else 1.0
    return {
        member: min(_LARGEST_RATIO, max(1 / _LARGEST_RATIO, link.up_mbps / middle)) if link.up_mbps else 1.0
        for member, link in links.items()
    }


def balanced_steps(
    step_s: Mapping[str, float], transfer_s: Mapping[str, float], *, steps: int, fewest: int = 1
) -> dict[str, int]:
    """Return how many optimiser steps each domain takes so that all are ready at about the same time.

    The domain that would be ready first with the plan's ``steps`` takes them all and sets the time; the others take as
    many as they manage until then, and at least ``fewest``. Nobody is believed to be ready ``_MOST_AHEAD`` times before
    the median: by such a claim a single domain would take the others' training from the sum.

    Parameters
    ----------
    step_s : mapping of str to float
        Seconds a step, by address, each over 0.
    transfer_s : mapping of str to float
        Seconds that its transfers of a round take, by address.
    steps, fewest : int
        Most and fewest steps.
    """
    ready_s = [step_s[member] * steps + transfer_s[member] for member in step_s]
    ready = max(min(ready_s), statistics.median_high(ready_s) / _MOST_AHEAD)
    return {
        member: max(min(steps, fewest), min(steps, math.floor((ready - transfer_s[member]) / seconds + 1e-9)))
        for member, seconds in step_s.items()
    }


def affordable_bits(sizes: Mapping[int, int], links: Iterable[Link], train_s: float) -> int:
    """Return the most bits whose update and sum move over the slowest link in the time that training takes.

    Coarser rounding costs little while error feedback brings back what it leaves out; a link that is busy for longer
    than the processors holds everybody up.

    Parameters
    ----------
    sizes : mapping of int to int
        Bytes of an update by its bits; the sum is as large.
    links : iterable of Link
        Of all who seal together: they share one packing, hence one number of bits.
    train_s : float
        Seconds of local training in a round.

    Returns
    -------
    int
        The fewest of ``sizes`` if none is quick enough, the most if no link was measured.
    """
    known = list(links)
    able = [bits for bits, size in sizes.items() if max(link.seconds(size, size) for link in known) <= train_s]
    return max(able, default=min(sizes))


def _rate(before: float | None, size_bytes: int, seconds: float, latency_s: float) -> float | None:
    if size_bytes < _SMALLEST_BYTES or seconds <= 0:
        return before
    # A store answers a put of many bytes as late as one of few; at least a tenth of the time went into the bytes.
    mbps = size_bytes * 8e-6 / max(seconds - latency_s, seconds / 10)
    return mbps if before is None else math.exp((1 - SMOOTHING) * math.log(before) + SMOOTHING * math.log(mbps))


def _smoothed(before: float | None, new: float | None) -> float | None:
    if before is None or new is None:
        return before if new is None else new
    return (1 - SMOOTHING) * before + SMOOTHING * new
