"""The test bed: places with a network of their own, joined by links that can be changed at any time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments.crosscloud.links import Link
from fedpriv.experiments.crosscloud.programs import program

_NETWORK = "10.77.0"


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What crossed a place's link so far, headers and repeated packets included.

    Attributes
    ----------
    up_bytes, down_bytes, up_packets, down_packets : int
        From the place, and to it.
    dropped : int
        Packets that the link lost, or that its queue had no room for, both ways.
    """

    up_bytes: int
    down_bytes: int
    up_packets: int
    down_packets: int
    dropped: int

    def since(self, before: Traffic) -> Traffic:
        """Return what came after ``before``."""
        return Traffic(**{name: value - getattr(before, name) for name, value in vars(self).items()})


class Bed:
    """Places joined by links. Processes run in a place; they reach the others by address and nothing else.

    Parameters
    ----------
    links : mapping of str to Link
        The link of each place, by its name.

    Examples
    --------
    >>> with Bed({"micu": Link(rate_mbps=2, delay_ms=150), "store": Link()}) as bed:  # doctest: +SKIP
    ...     subprocess.run([*bed.inside("micu"), "ping", "-c", "3", bed.address("store")])
    ...     bed.set("micu", Link(rate_mbps=2, delay_ms=150, loss=0.5))
    """

    def __init__(self, links: Mapping[str, Link]) -> None:
        self._links = dict(links)
        self._addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(self._links, start=2)}
        self._namespaces: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Bed:
        """Make the places.

        Raises
        ------
        ConfigError
            If this machine or user may not: it takes root, or the capabilities net_admin and sys_admin.
        """
        program("nsenter")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedpriv.experiments.crosscloud.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; it ends when we close its input, or are gone
        )
        nodes = {
            name: {"address": self._addresses[name], "link": link.model_dump()} for name, link in self._links.items()
        }
        try:
            answer = self._ask({"nodes": nodes})
        except BaseException:
            self.__exit__()
            raise
        if "error" in answer:
            self.__exit__()
            raise ConfigError(
                f"Network namespaces cannot be made here ({answer['error']})",
                kept="Nothing was changed",
                todo="run it as root, on a machine with /dev/net/tun",
            )
        self._namespaces = answer["namespaces"]
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.wait(10)
            process.stdout.close()

    def address(self, name: str) -> str:
        """Return the IPv4 address of a place."""
        return self._addresses[name]

    def inside(self, name: str) -> tuple[str, ...]:
        """Return the words that stand before a command to run it in a place."""
        return (program("nsenter"), f"--net={self._namespaces[name]}", "--")

    def link(self, name: str) -> Link:
        """Return the link of a place as it is now."""
        return self._links[name]

    def set(self, name: str, link: Link) -> None:
        """Change a link while it is used; what is on its way keeps its time."""
        self._links[name] = link
        self._ask({"link": {name: link.model_dump()}})

    def traffic(self) -> dict[str, Traffic]:
        """Return what crossed each link so far."""
        return {name: Traffic(**counts) for name, counts in self._ask({"traffic": True}).items()}

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ConfigError("The test bed is not running")
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise StudyError("The test bed's network ended", todo="read what it says above")
        return json.loads(line)
