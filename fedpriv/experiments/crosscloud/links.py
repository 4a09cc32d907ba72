"""What a link between a cloud and the world does to packets: rate, delay, loss, and a queue that overflows."""

from __future__ import annotations

import random

from pydantic import Field

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section

MTU_BYTES = 1500
_QUEUE_SECONDS, _LEAST_QUEUE_PACKETS = 0.2, 64


class Link(Section):
    """A link, the same in both directions.

    Attributes
    ----------
    rate_mbps : float or None
        Megabits a second; None is as fast as this machine.
    delay_ms : float
        Milliseconds that a packet travels, one way: a round trip over it takes twice that.
    loss : float
        Part of the packets that are lost, in each direction; 1 cuts the link.
    """

    rate_mbps: float | None = Field(default=None, gt=0)
    delay_ms: float = Field(default=0.0, ge=0, le=10_000)
    loss: float = Field(default=0.0, ge=0, le=1)

    @property
    def shown(self) -> str:
        """The link in words."""
        rate = "unlimited" if self.rate_mbps is None else f"{self.rate_mbps:g} Mbit/s"
        return f"{rate}, {self.delay_ms:g} ms" + (f", {self.loss:.0%} lost" if self.loss else "")

    @property
    def queue_bytes(self) -> float:
        """How much waits at most to be sent: a fifth of a second's worth, and at least 64 packets, as routers hold."""
        if self.rate_mbps is None:
            return float("inf")
        return max(self.rate_mbps * 1e6 / 8 * _QUEUE_SECONDS, _LEAST_QUEUE_PACKETS * MTU_BYTES)


class Shaper:
    """One direction of a link: says when each packet arrives at the other end, if it does.

    Packets are sent one after the other at the link's rate and arrive in the order in which they came.

    Parameters
    ----------
    link : Link
        May be replaced at any time; what is on its way keeps its time.
    seed : int
        Of the losses.
    """

    def __init__(self, link: Link, seed: int = 0) -> None:
        self.link = link
        self.bytes, self.packets, self.dropped = 0, 0, 0
        self._free_s = 0.0
        self._random = random.Random(seed)

    def arrival_s(self, size: int, now_s: float) -> float | None:
        """Return when a packet of ``size`` bytes that comes at ``now_s`` arrives, or None if it is lost."""
        link, start = self.link, max(now_s, self._free_s)
        if link.rate_mbps is not None:
            byte_s = 8e-6 / link.rate_mbps
            if (start - now_s) / byte_s + size > link.queue_bytes + 0.5:
                self.dropped += 1
                return None
            self._free_s = start = start + size * byte_s
        if link.loss and self._random.random() < link.loss:
            self.dropped += 1
            return None
        self.bytes += size
        self.packets += 1
        return start + link.delay_ms / 1e3


def parse_links(rates: str, delays: str) -> tuple[Link, ...]:
    """Return the links of ``"100,20,2"`` Mbit/s and ``"10,50,150"`` ms.

    Raises
    ------
    ConfigError
        If one is no number in range, they are not of the same length, or fewer than two.
    """
    try:
        pairs = zip(map(float, rates.split(",")), map(float, delays.split(",")), strict=True)
        links = tuple(Link(rate_mbps=rate, delay_ms=delay) for rate, delay in pairs)
    except ValueError as error:
        raise ConfigError(f"Rates {rates} and delays {delays} are no links", todo="write them like 100,20,2") from error
    if len(links) < 2:
        raise ConfigError("One link makes no federation", todo="give at least two")
    return links
