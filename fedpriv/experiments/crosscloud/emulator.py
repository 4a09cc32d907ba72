"""The process that is the network: it holds every namespace and its only interface, and carries packets between them.

A namespace lives as long as this process holds it, and the process ends when its standard input does. So nothing has a
name on the system, and nothing is left behind whatever is killed. Linux's own netem is missing on many machines.

It reads one JSON object a line and answers each with one::

    {"nodes": {"micu": {"address": "10.77.0.2", "link": {...}}}}   ->  {"namespaces": {"micu": "/proc/1/fd/5"}}
    {"link": {"micu": {...}}}                                      ->  {}
    {"traffic": true}                                              ->  {"micu": {"up_bytes": 0, ...}}
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import select
import struct
import subprocess
import sys
import time
from typing import Any

from fedpriv.experiments.crosscloud.links import MTU_BYTES, Link, Shaper
from fedpriv.experiments.crosscloud.programs import program

_CLONE_NEWNET = 0x4000_0000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000
_INTERFACE = "cloud0"
_BURST = 64
_DESTINATION = slice(16, 20)
"""Where an IPv4 packet says where it is going."""


class Node:
    """A namespace, its interface and the two directions of its link."""

    def __init__(self, name: str, address: str, link: Link, seed: int) -> None:
        self.name, self.address = name, bytes(int(part) for part in address.split("."))
        self.up, self.down = Shaper(link, 2 * seed), Shaper(link, 2 * seed + 1)
        self.namespace, self.interface = _new_namespace(address)

    def traffic(self) -> dict[str, int]:
        up, down = self.up, self.down
        return {
            "up_bytes": up.bytes,
            "down_bytes": down.bytes,
            "up_packets": up.packets,
            "down_packets": down.packets,
            "dropped": up.dropped + down.dropped,
        }


class Emulator:
    """Carries packets between nodes until standard input ends."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._by_address = {node.address: node for node in nodes}
        self._by_interface = {node.interface: node for node in nodes}
        self._on_its_way: list[tuple[float, int, Node, bytes, bool]] = []
        self._order = itertools.count()

    def run(self) -> None:
        poll = select.epoll()
        for interface in (*self._by_interface, sys.stdin.fileno()):
            poll.register(interface, select.EPOLLIN)
        while True:
            for interface, _ in poll.poll(self._next_s()):
                node = self._by_interface.get(interface)
                if node is not None:
                    self._take(node)
                elif not self._obey():
                    return
            self._move(time.monotonic())

    def _next_s(self) -> float:
        return max(0.0, self._on_its_way[0][0] - time.monotonic()) if self._on_its_way else -1

    def _take(self, node: Node) -> None:
        """Take what a node sends and put it on the node's link."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BURST):
                packet = os.read(node.interface, MTU_BYTES)
                target = self._by_address.get(packet[_DESTINATION])
                if packet[0] >> 4 != 4 or target is None:
                    continue  # IPv6's and broadcasts: nobody is there
                arrival = node.up.arrival_s(len(packet), time.monotonic())
                if arrival is not None:
                    heapq.heappush(self._on_its_way, (arrival, next(self._order), target, packet, False))

    def _move(self, now: float) -> None:
        """Pass on what has come to the end of a link: to the target's link, or to the target."""
        while self._on_its_way and self._on_its_way[0][0] <= now:
            at, _, target, packet, is_there = heapq.heappop(self._on_its_way)
            if not is_there:
                arrival = target.down.arrival_s(len(packet), at)
                if arrival is None:
                    continue
                if arrival > now:
                    heapq.heappush(self._on_its_way, (arrival, next(self._order), target, packet, True))
                    continue
            with contextlib.suppress(OSError):  # its queue is full, or nobody is there: packets may be lost
                os.write(target.interface, packet)

    def _obey(self) -> bool:
        line = sys.stdin.buffer.readline()
        if not line:
            return False
        order, answer = json.loads(line), {}
        for name, link in order.get("link", {}).items():
            node = self._nodes[name]
            node.up.link = node.down.link = Link.model_validate(link)
        if order.get("traffic"):
            answer = {name: node.traffic() for name, node in self._nodes.items()}
        _answer(answer)
        return True


def _new_namespace(address: str) -> tuple[int, int]:
    """Move this process into a new network namespace; return it, and its only interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise PermissionError(number, os.strerror(number), "a network namespace")
    interface = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(interface, _TUNSETIFF, struct.pack("16sH22x", _INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{address}/24", "dev", _INTERFACE),
        ("link", "set", _INTERFACE, "mtu", str(MTU_BYTES), "up"),
    ):
        subprocess.run([program("ip"), *words], check=True, stdin=subprocess.DEVNULL)
    return os.open("/proc/self/ns/net", os.O_RDONLY), interface


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    wanted = json.loads(sys.stdin.buffer.readline())["nodes"]
    try:
        nodes = [
            Node(name, node["address"], Link.model_validate(node["link"]), seed)
            for seed, (name, node) in enumerate(wanted.items())
        ]
    except (OSError, subprocess.CalledProcessError) as error:
        _answer({"error": str(error)})
        return
    _answer({"namespaces": {node.name: f"/proc/{os.getpid()}/fd/{node.namespace}" for node in nodes}})
    Emulator(nodes).run()


if __name__ == "__main__":
    main()
